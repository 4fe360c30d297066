//! The job queue of a container's worker threads: any thread pushes, Python threads run the jobs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use nameko::amqp::Unsent;
use nameko::internal::lock;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::reply_batch::ReplyBatch;
use crate::scheduler::{Next, STALL_AFTER, Scheduler, WorkerId};

/// The longest pause between two checks of the watchdog while jobs wait behind a hot thread that
/// makes progress.
const MAX_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The number of checks without a stalled job after which the watchdog sleeps until it is woken.
/// Under load there soon is one again, and a wake-up costs more than a few checks.
const MAX_IDLE_CHECKS: u32 = 4;

/// A unit of work for a worker thread.
///
/// A job handles its own errors, as it has no caller. Dropping one that has not run releases all
/// that it holds.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// Calls `callable` inside a job. An exception goes to `sys.unraisablehook`.
pub(crate) fn call_reporting<'py, A>(py: Python<'py>, callable: &Py<PyAny>, arguments: A)
where
    A: PyCallArgs<'py>,
{
    if let Err(error) = callable.call1(py, arguments) {
        error.write_unraisable(py, Some(callable.bind(py)));
    }
}

/// The worker queue of one container.
///
/// One hot thread drains it, many jobs per GIL attach. Another thread is woken only if the hot one
/// is in one job for some hundred microseconds, or waits in a call of this module. One spare thread
/// is kept parked. Threads are started through `spawn`, from Python threads only.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Jobs {
    pub(crate) queue: Arc<JobQueue>,
    /// None once stopped: it may refer to the owner of this object.
    spawn: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl Jobs {
    #[new]
    fn new(max_threads: usize, spawn: Py<PyAny>) -> Self {
        Jobs {
            queue: Arc::new(JobQueue::new(max_threads)),
            spawn: Mutex::new(Some(spawn)),
        }
    }

    /// Queues a callable. Raises RuntimeError after `stop()`.
    fn put(&self, py: Python<'_>, job: Py<PyAny>) -> PyResult<()> {
        let job: Job = Box::new(move |py| call_reporting(py, &job, ()));
        match self.queue.push(job) {
            Ok(()) => self.ensure_thread(py),
            Err(_) => Err(PyRuntimeError::new_err(
                "the worker queue has been stopped and takes no more jobs",
            )),
        }
    }

    /// Runs the loop of one worker thread. Returns when the queue has been stopped.
    fn run(&self, py: Python<'_>) {
        let worker = Worker::enter(&self.queue);
        loop {
            let step = self.queue.next_step(worker.id, UNSENT.take());
            step.flush.into_iter().flatten().for_each(Unsent::flush);
            if step.start_thread
                && let Err(error) = self.start_thread(py)
            {
                error.write_unraisable(py, None);
            }
            match step.next {
                Next::Run(job) => {
                    // The panic hook has reported the panic.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(py)));
                    self.queue.running.fetch_sub(1, Ordering::Release);
                }
                Next::Park => py.detach(|| self.queue.park(worker.id)),
                Next::Stop => return,
            }
        }
    }

    /// Returns the number of jobs that have not started.
    fn pending(&self) -> usize {
        self.queue.pending()
    }

    /// Returns the number of jobs that have not started or not finished.
    fn unfinished(&self) -> usize {
        self.queue.unfinished()
    }

    /// Refuses further jobs. Threads return once the queue is empty; with `discard` at once, and
    /// queued deliveries are requeued at the broker.
    #[pyo3(signature = (discard = false))]
    fn stop(&self, py: Python<'_>, discard: bool) {
        py.detach(|| self.queue.stop(discard));
        let spawn = lock(&self.spawn).take();
        drop(spawn);
    }
}

impl Jobs {
    /// A queue for one thread, started by the caller.
    pub(crate) fn single_threaded() -> Self {
        Jobs {
            queue: Arc::new(JobQueue::new(1)),
            spawn: Mutex::default(),
        }
    }

    /// Starts the first thread, if there is none. Running threads start the further ones.
    pub(crate) fn ensure_thread(&self, py: Python<'_>) -> PyResult<()> {
        let start = {
            let scheduler = &mut lock(&self.queue.state).scheduler;
            scheduler.has_no_threads() && scheduler.request_thread()
        };
        if start { self.start_thread(py) } else { Ok(()) }
    }

    /// Calls `spawn` for a thread that the scheduler already counts.
    fn start_thread(&self, py: Python<'_>) -> PyResult<()> {
        let spawn = lock(&self.spawn).as_ref().map(|spawn| spawn.clone_ref(py));
        match spawn {
            Some(spawn) => spawn.call0(py).map(drop),
            None => Err(PyRuntimeError::new_err("the worker queue has been stopped")),
        }
        .inspect_err(|_| lock(&self.queue.state).scheduler.thread_not_started())
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.queue.stop(true);
    }
}

/// The part of [`Jobs`] that is independent of Python: any thread may push.
pub(crate) struct JobQueue {
    state: Mutex<State>,
    /// Wakes the watchdog when jobs wait behind the hot thread, and when the queue is stopped.
    wake_watchdog: Condvar,
    /// The number of running jobs. A job is counted before the lock on `state` is released.
    running: AtomicUsize,
}

struct State {
    scheduler: Scheduler<Job>,
    /// The registered threads, to wake them.
    threads: HashMap<WorkerId, Thread>,
    /// A plain thread that wakes another worker when the hot one is stalled. Started on demand,
    /// joined when the queue is stopped.
    watchdog: Option<JoinHandle<()>>,
    /// Whether the watchdog wakes by itself for its next check.
    check_scheduled: bool,
    /// The replies that the jobs of the hot thread have published.
    replies: ReplyBatch,
}

/// The next step of a worker thread.
struct Step {
    /// Replies to flush first.
    flush: [Option<Unsent>; 2],
    /// Whether to start another thread before the job.
    start_thread: bool,
    next: Next<Job>,
}

impl JobQueue {
    pub(crate) fn new(max_threads: usize) -> Self {
        let state = State {
            scheduler: Scheduler::new(max_threads),
            threads: HashMap::new(),
            watchdog: None,
            check_scheduled: false,
            replies: ReplyBatch::default(),
        };
        JobQueue {
            state: Mutex::new(state),
            wake_watchdog: Condvar::new(),
            running: AtomicUsize::new(0),
        }
    }

    /// Queues a job.
    ///
    /// # Errors
    ///
    /// Returns the job if the queue was stopped.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        let woken = state.scheduler.push(job, Instant::now())?;
        self.wake(state, woken);
        Ok(())
    }

    /// The number of jobs that have not started.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.state).scheduler.pending()
    }

    fn unfinished(&self) -> usize {
        let state = lock(&self.state);
        state.scheduler.pending() + self.running.load(Ordering::Acquire)
    }

    /// Stops the queue and its watchdog.
    pub(crate) fn stop(&self, discard: bool) {
        let (threads, discarded, watchdog) = {
            let mut state = lock(&self.state);
            let (woken, discarded) = state.scheduler.stop(discard);
            let threads: Vec<Thread> = woken
                .iter()
                .filter_map(|worker| state.threads.get(worker).cloned())
                .collect();
            (threads, discarded, state.watchdog.take())
        };
        self.wake_watchdog.notify_all();
        drop(discarded);
        threads.iter().for_each(Thread::unpark);
        if let Some(thread) = watchdog {
            // The thread returns at once; the panic hook has reported a panic.
            let _ = thread.join();
        }
    }

    /// Returns the next step of a thread. `reply` is the one that its last job published.
    ///
    /// A reply is flushed at once if no job waits behind. While short jobs follow one another,
    /// several replies are flushed together; if the next job is not short, the watchdog, which
    /// runs then anyway, flushes them.
    fn next_step(self: &Arc<Self>, worker: WorkerId, reply: Option<Unsent>) -> Step {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let was_short = state.scheduler.is_hot_worker(worker, now);
        let next = state.scheduler.next(worker, now);
        let runs = matches!(next, Next::Run(_));
        if runs {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        let start_thread = runs && state.scheduler.request_thread();
        let may_grow = runs && was_short && state.scheduler.next_check_at().is_some();
        let flush = state.replies.add(reply, may_grow);
        self.wake(state, None);
        Step {
            flush,
            start_thread,
            next,
        }
    }

    /// Sleeps until the scheduler wakes this thread.
    fn park(&self, worker: WorkerId) {
        while lock(&self.state).scheduler.is_parked(worker) {
            std::thread::park();
        }
    }

    /// Wakes the worker that the scheduler has chosen, and the watchdog if it has to check.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>, woken: Option<WorkerId>) {
        let thread = woken.and_then(|worker| state.threads.get(&worker).cloned());
        let wake_watchdog = !state.check_scheduled && state.scheduler.next_check_at().is_some();
        if wake_watchdog {
            state.check_scheduled = true;
            if state.watchdog.is_none() {
                let queue = self.clone();
                let thread = std::thread::Builder::new().name("nameko-watchdog".into());
                // Without a watchdog, jobs wait behind a stalled one. The next push tries again.
                state.watchdog = thread.spawn(move || queue.run_watchdog()).ok();
                state.check_scheduled = state.watchdog.is_some();
            }
        }
        drop(state);
        if wake_watchdog {
            self.wake_watchdog.notify_one();
        }
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// Runs the watchdog's loop.
    fn run_watchdog(&self) {
        let mut pace = WatchdogPace::new();
        let mut state = lock(&self.state);
        while !state.scheduler.has_stopped() {
            if let Some(unsent) = state.replies.take() {
                drop(state);
                unsent.flush();
                state = lock(&self.state);
            }
            if let Some(worker) = state.scheduler.check_stalled(Instant::now())
                && let Some(thread) = state.threads.get(&worker)
            {
                thread.unpark();
            }
            let pause = pace.after_check(&state.scheduler);
            state.check_scheduled = pause.is_some();
            state = match pause {
                Some(pause) => {
                    let waited = self.wake_watchdog.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.wake_watchdog.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// The intervals between the watchdog's checks.
struct WatchdogPace {
    started_jobs: u64,
    interval: Duration,
    idle_checks: u32,
}

impl WatchdogPace {
    fn new() -> Self {
        WatchdogPace {
            started_jobs: 0,
            interval: STALL_AFTER,
            idle_checks: 0,
        }
    }

    /// Returns the pause until the next check; none if the watchdog sleeps until it is woken.
    fn after_check(&mut self, scheduler: &Scheduler<Job>) -> Option<Duration> {
        let started_jobs = scheduler.started_jobs();
        if scheduler.next_check_at().is_none() {
            self.idle_checks += 1;
            self.interval = MAX_CHECK_INTERVAL;
        } else {
            self.idle_checks = 0;
            self.interval = if started_jobs == self.started_jobs {
                STALL_AFTER
            } else {
                // Exponential backoff while the hot thread makes progress.
                (self.interval * 2).min(MAX_CHECK_INTERVAL)
            };
        }
        self.started_jobs = started_jobs;
        (self.idle_checks <= MAX_IDLE_CHECKS).then_some(self.interval)
    }
}

thread_local! {
    /// The queue and the id of this worker thread; none on other threads.
    static CURRENT: RefCell<Option<(Arc<JobQueue>, WorkerId)>> = const { RefCell::new(None) };

    /// The reply that the job of this thread has published.
    static UNSENT: RefCell<Option<Unsent>> = const { RefCell::new(None) };
}

/// Flushes a reply after the job of this thread; at once if the thread runs none.
pub(crate) fn flush_after_job(unsent: Unsent) {
    let flush_now = if CURRENT.with_borrow(Option::is_none) {
        Some(unsent)
    } else {
        let earlier = UNSENT.replace(Some(unsent.clone()));
        earlier.filter(|earlier| !earlier.shares_connection(&unsent))
    };
    if let Some(unsent) = flush_now {
        unsent.flush();
    }
}

/// The registration of a thread with a queue.
struct Worker {
    queue: Arc<JobQueue>,
    id: WorkerId,
    /// The outer registration, if `run()` was called inside a job.
    outer: Option<(Arc<JobQueue>, WorkerId)>,
}

impl Worker {
    fn enter(queue: &Arc<JobQueue>) -> Self {
        let mut state = lock(&queue.state);
        let id = state.scheduler.register();
        state.threads.insert(id, std::thread::current());
        drop(state);
        let outer = CURRENT.replace(Some((queue.clone(), id)));
        Worker {
            queue: queue.clone(),
            id,
            outer,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.queue.state).threads.remove(&self.id);
        CURRENT.set(self.outer.take());
    }
}

/// Keeps this thread hot because its job is about to finish, although the job took its time. The
/// next job follows soon, and a second thread would only compete for the GIL.
pub(crate) fn nearly_finished() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, worker)) = current {
        lock(&queue.state).scheduler.touch(worker, Instant::now());
    }
}

/// Hands the jobs behind this worker's own to another thread, before this one waits.
pub(crate) fn about_to_block() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, worker)) = current {
        let mut state = lock(&queue.state);
        let woken = state.scheduler.block(worker);
        let held = state.replies.take();
        queue.wake(state, woken);
        for unsent in [held, UNSENT.take()].into_iter().flatten() {
            unsent.flush();
        }
    }
}
