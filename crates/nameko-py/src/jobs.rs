//! The worker threads of one container: Rust pushes deliveries, Python pushes callables, Python threads run them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use nameko::amqp::Unsent;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::delivery::Delivery;
use crate::lock::lock;
use crate::scheduler::{Next, STALL_AFTER, Scheduler, WorkerId};

/// The longest time between two looks of the watchdog while jobs wait behind a hot thread that makes progress.
const MAX_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// How often the watchdog looks by itself when there is nothing to watch any more. In busy times there soon is again, and
/// being woken for it costs more.
const MAX_IDLE_CHECKS: u32 = 4;

/// As many replies are sent together, at most.
const MAX_BATCHED_REPLIES: u32 = 8;

/// One thing for a worker thread to do.
pub(crate) enum Job {
    /// Call the handler with the delivery.
    Deliver(Arc<Py<PyAny>>, Box<nameko::amqp::Delivery>),
    /// Call it without arguments.
    Call(Py<PyAny>),
    /// Something of this crate's own.
    Rust(Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>),
}

impl Job {
    /// Runs the job. What it raises goes to `sys.unraisablehook`: nothing a job does ends its thread.
    fn run(self, py: Python<'_>) {
        let (culprit, result) = match self {
            Job::Deliver(handler, delivery) => {
                let result = Py::new(py, Delivery::new(delivery))
                    .and_then(|delivery| handler.call1(py, (delivery,)));
                (Some(handler.clone_ref(py)), result.map(drop))
            }
            Job::Call(callable) => {
                let result = callable.call0(py);
                (Some(callable), result.map(drop))
            }
            Job::Rust(action) => (None, action(py)),
        };
        if let Err(error) = result {
            error.write_unraisable(py, culprit.as_ref().map(|culprit| culprit.bind(py)));
        }
    }

    /// Gives up a job that was not begun: a delivery goes back to its queue.
    fn discard(self) {
        if let Job::Deliver(_, delivery) = self {
            delivery.acker.reject(true);
        }
    }
}

/// The worker queue of one container.
///
/// One hot thread drains it, many jobs per GIL attach. A further thread is woken only when the hot one is blocked or
/// busy for some hundred microseconds, or waits in a call of this module. One spare thread is kept parked; threads are
/// started through `spawn`, from Python threads only.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Jobs {
    pub(crate) queue: Arc<JobQueue>,
    /// None after the end: it may hold whoever holds this.
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
        match self.queue.push(Job::Call(job)) {
            Ok(()) => self.ensure_thread(py),
            Err(_) => Err(PyRuntimeError::new_err(
                "the worker queue has been stopped and takes no more jobs",
            )),
        }
    }

    /// The loop of one worker thread. Returns when the queue has been stopped.
    fn run(&self, py: Python<'_>) {
        let worker = Worker::enter(&self.queue);
        loop {
            let Step {
                next,
                wants_thread,
                unsent,
            } = self.queue.take(worker.worker, UNSENT.take());
            unsent.into_iter().flatten().for_each(Unsent::flush);
            if wants_thread && let Err(error) = self.start_thread(py) {
                error.write_unraisable(py, None);
            }
            match next {
                Next::Run(job) => {
                    // A panic has been reported by the panic hook.
                    let _ = catch_unwind(AssertUnwindSafe(|| job.run(py)));
                    self.queue.running.fetch_sub(1, Ordering::Release);
                }
                Next::Park => py.detach(|| self.queue.park(worker.worker)),
                Next::Stop => return,
            }
        }
    }

    /// Jobs not begun.
    fn pending(&self) -> usize {
        self.queue.pending()
    }

    /// Jobs not begun, and jobs begun and not over.
    fn unfinished(&self) -> usize {
        self.queue.unfinished()
    }

    /// Takes no more jobs. Threads return when the queue is empty; with `discard` at once, and queued deliveries go
    /// back to the broker's queue.
    #[pyo3(signature = (discard = false))]
    fn stop(&self, py: Python<'_>, discard: bool) {
        py.detach(|| self.queue.end(discard));
        let spawn = lock(&self.spawn).take();
        drop(spawn);
    }
}

impl Jobs {
    /// A queue for one thread, which the caller starts.
    pub(crate) fn single_threaded() -> Self {
        Jobs {
            queue: Arc::new(JobQueue::new(1)),
            spawn: Mutex::default(),
        }
    }

    /// Starts the first thread, if there is none. Later ones are started by the threads themselves.
    pub(crate) fn ensure_thread(&self, py: Python<'_>) -> PyResult<()> {
        let wanted = {
            let scheduler = &mut lock(&self.queue.state).scheduler;
            scheduler.has_no_threads() && scheduler.request_thread()
        };
        if wanted {
            self.start_thread(py)
        } else {
            Ok(())
        }
    }

    /// Calls `spawn` for a thread that the scheduler counts as started already.
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
        self.queue.end(true);
    }
}

/// The part of [`Jobs`] that needs no Python: any thread may push.
pub(crate) struct JobQueue {
    state: Mutex<State>,
    /// Wakes the watchdog when there is something to watch, and when the queue ends.
    watch: Condvar,
    /// Jobs begun and not over. A job that is taken is counted before the lock on `state` is given back.
    running: AtomicUsize,
}

struct State {
    scheduler: Scheduler<Job>,
    /// The threads that have a worker, to wake them.
    threads: HashMap<WorkerId, Thread>,
    /// A plain thread that calls another worker when the hot one is stuck. Started when first needed, ended with the queue.
    watchdog: Option<JoinHandle<()>>,
    /// The watchdog will look again by itself: nobody needs to wake it.
    check_scheduled: bool,
    /// What the jobs of the hot thread published, and how many of them, to be sent with what those behind them publish.
    unsent: Option<(Unsent, u32)>,
}

/// What a thread does next.
struct Step {
    next: Next<Job>,
    /// It starts another thread before.
    wants_thread: bool,
    /// It has these sent before.
    unsent: [Option<Unsent>; 2],
}

impl JobQueue {
    pub(crate) fn new(max_threads: usize) -> Self {
        let state = State {
            scheduler: Scheduler::new(max_threads),
            threads: HashMap::new(),
            watchdog: None,
            check_scheduled: false,
            unsent: None,
        };
        JobQueue {
            state: Mutex::new(state),
            watch: Condvar::new(),
            running: AtomicUsize::new(0),
        }
    }

    /// Queues a job; gives it back after the end.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        let woken = state.scheduler.push(job, Instant::now())?;
        self.wake(state, woken);
        Ok(())
    }

    /// Queues a delivery; one that comes after the end goes back to the broker's queue.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        handler: &Arc<Py<PyAny>>,
        delivery: nameko::amqp::Delivery,
    ) {
        if let Err(job) = self.push(Job::Deliver(handler.clone(), Box::new(delivery))) {
            job.discard();
        }
    }

    /// Jobs not begun.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.state).scheduler.pending()
    }

    fn unfinished(&self) -> usize {
        let state = lock(&self.state);
        state.scheduler.pending() + self.running.load(Ordering::Acquire)
    }

    /// Ends the queue and its watchdog.
    pub(crate) fn end(&self, discard: bool) {
        let (threads, jobs, watchdog) = {
            let mut state = lock(&self.state);
            let (woken, jobs) = state.scheduler.stop(discard);
            let threads: Vec<Thread> = woken
                .iter()
                .filter_map(|worker| state.threads.get(worker).cloned())
                .collect();
            (threads, jobs, state.watchdog.take())
        };
        self.watch.notify_all();
        jobs.into_iter().for_each(Job::discard);
        threads.iter().for_each(Thread::unpark);
        if let Some(thread) = watchdog {
            // It returns at once; a panic of it has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// The thread's next next. `unsent`: what its last job published.
    ///
    /// That is sent at once when nothing waits behind the job. In a storm of short jobs several are sent together; should
    /// the next job not be short, the watchdog, which looks anyway, has them sent.
    fn take(self: &Arc<Self>, worker: WorkerId, unsent: Option<Unsent>) -> Step {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let quick = state.scheduler.is_hot_worker(worker, now);
        let next = state.scheduler.next(worker, now);
        let runs = matches!(next, Next::Run(_));
        if runs {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        let wants_thread = runs && state.scheduler.request_thread();
        let (before, count) = state.unsent.take().unzip();
        let mut next = Step {
            next,
            wants_thread,
            unsent: [before, unsent],
        };
        let count = count.unwrap_or(0) + 1;
        let waits = runs
            && quick
            && state.scheduler.next_check_at().is_some()
            && count < MAX_BATCHED_REPLIES;
        if waits && let [before, Some(last)] = &mut next.unsent {
            let together = before
                .as_ref()
                .is_none_or(|before| before.shares_connection(last));
            if together {
                state.unsent = Some((last.clone(), count));
                next.unsent = [None, None];
            }
        }
        self.wake(state, None);
        next
    }

    /// Sleeps until the scheduler calls this thread.
    fn park(&self, worker: WorkerId) {
        while lock(&self.state).scheduler.is_parked(worker) {
            std::thread::park();
        }
    }

    /// Wakes a worker that was called, and the watchdog if it is needed.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>, called: Option<WorkerId>) {
        let thread = called.and_then(|worker| state.threads.get(&worker).cloned());
        let watch = !state.check_scheduled && state.scheduler.next_check_at().is_some();
        if watch {
            state.check_scheduled = true;
            if state.watchdog.is_none() {
                let queue = self.clone();
                let thread = std::thread::Builder::new().name("nameko-watchdog".into());
                // Out of threads: jobs behind a stuck one wait for it, and the next push tries again.
                state.watchdog = thread.spawn(move || queue.watch()).ok();
                state.check_scheduled = state.watchdog.is_some();
            }
        }
        drop(state);
        if watch {
            self.watch.notify_one();
        }
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// The watchdog's loop.
    fn watch(&self) {
        let (mut seen, mut pause, mut idle) = (0, STALL_AFTER, 0);
        let mut state = lock(&self.state);
        while !state.scheduler.has_stopped() {
            if let Some((unsent, _)) = state.unsent.take() {
                drop(state);
                unsent.flush();
                state = lock(&self.state);
            }
            if let Some(worker) = state.scheduler.check_stalled(Instant::now())
                && let Some(thread) = state.threads.get(&worker)
            {
                thread.unpark();
            }
            if state.scheduler.next_check_at().is_none() {
                (idle, pause) = (idle + 1, MAX_CHECK_INTERVAL);
            } else if state.scheduler.started_jobs() == seen {
                (idle, pause) = (0, STALL_AFTER);
            } else {
                // While jobs are begun all the time the looks become rarer: a storm of short jobs needs no watching.
                (idle, pause) = (0, (pause * 2).min(MAX_CHECK_INTERVAL));
            }
            seen = state.scheduler.started_jobs();
            state.check_scheduled = idle <= MAX_IDLE_CHECKS;
            state = if state.check_scheduled {
                self.watch
                    .wait_timeout(state, pause)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            } else {
                self.watch
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

thread_local! {
    /// The queue and the worker of the worker thread this is, if it is one.
    static CURRENT: RefCell<Option<(Arc<JobQueue>, WorkerId)>> = const { RefCell::new(None) };

    /// What the job of this thread published.
    static UNSENT: RefCell<Option<Unsent>> = const { RefCell::new(None) };
}

/// Has it sent when the job that this thread runs is over; at once where it runs none.
pub(crate) fn flush_after_job(unsent: Unsent) {
    let now = if CURRENT.with_borrow(Option::is_none) {
        Some(unsent)
    } else {
        let before = UNSENT.replace(Some(unsent.clone()));
        before.filter(|before| !before.shares_connection(&unsent))
    };
    if let Some(unsent) = now {
        unsent.flush();
    }
}

/// A thread's stay in a queue.
struct Worker {
    queue: Arc<JobQueue>,
    worker: WorkerId,
    /// The queue it worked for before, when `run()` was called inside a job.
    outer: Option<(Arc<JobQueue>, WorkerId)>,
}

impl Worker {
    fn enter(queue: &Arc<JobQueue>) -> Self {
        let mut state = lock(&queue.state);
        let worker = state.scheduler.register();
        state.threads.insert(worker, std::thread::current());
        drop(state);
        let outer = CURRENT.replace(Some((queue.clone(), worker)));
        Worker {
            queue: queue.clone(),
            worker,
            outer,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.queue.state).threads.remove(&self.worker);
        CURRENT.set(self.outer.take());
    }
}

/// Says that the job of this thread is nearly over. What its end leads to comes soon after, and is left to this thread
/// even though the job took its time: a second one would only fight with it for the GIL.
pub(crate) fn nearly_finished() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, worker)) = current {
        lock(&queue.state).scheduler.touch(worker, Instant::now());
    }
}

/// Says that this thread is about to wait: if it is a worker, another one takes the jobs behind its own.
pub(crate) fn about_to_block() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, worker)) = current {
        let mut state = lock(&queue.state);
        let called = state.scheduler.block(worker);
        let before = state.unsent.take().map(|(unsent, _)| unsent);
        queue.wake(state, called);
        for unsent in [before, UNSENT.take()].into_iter().flatten() {
            unsent.flush();
        }
    }
}
