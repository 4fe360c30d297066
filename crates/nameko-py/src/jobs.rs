//! The job queue of a container's worker threads: any thread pushes, Python threads run the jobs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use nameko::internal::lock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::finalization;
use crate::reply_batch::{Held, ReplyBatch};
use crate::scheduler::{Next, STALL_AFTER, Scheduler, WorkerId};

/// The longest pause between two checks of the watchdog while jobs wait behind a hot thread that
/// makes progress.
const MAX_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The number of checks without a stalled job after which the watchdog sleeps until it is woken.
/// Under load there soon is one again, and a wake-up costs more than a few checks.
const MAX_IDLE_CHECKS: u32 = 4;

/// A unit of work for a worker thread: prepares a call of Python.
///
/// The call itself is made by `nameko.utils.jobs`, without a compiled frame below it: a thread that
/// needs the GIL while the interpreter is finalized ends by unwinding its stack, which compiled
/// frames do not survive. Dropping a job that has not run releases all that it holds.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>) -> PyResult<Call> + Send>;

/// A call of `function(argument)`.
pub(crate) struct Call {
    function: Py<PyAny>,
    argument: Py<PyAny>,
    /// Dropped when the function has returned.
    guard: Option<Guard>,
}

type Guard = Box<dyn Any + Send>;

impl Call {
    pub(crate) fn new(function: Py<PyAny>, argument: impl Into<Py<PyAny>>) -> Self {
        Call {
            function,
            argument: argument.into(),
            guard: None,
        }
    }

    /// A call of `function(*arguments)`.
    pub(crate) fn with_arguments<A>(
        py: Python<'_>,
        function: &Py<PyAny>,
        arguments: A,
    ) -> PyResult<Self>
    where
        A: for<'py> IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
    {
        let apply = py.import("nameko.utils.jobs")?.getattr("apply")?;
        let call = (function, arguments).into_pyobject(py)?;
        Ok(Call::new(apply.unbind(), call.into_any()))
    }

    /// Drops `guard` when the function has returned.
    pub(crate) fn with_guard(self, guard: impl Any + Send) -> Self {
        Call {
            guard: Some(Box::new(guard)),
            ..self
        }
    }
}

/// The worker queue of one container.
///
/// One hot thread drains it. Another thread is woken only if the hot one is in one job for some
/// hundred microseconds, or waits in a call of this module. One spare thread is kept parked. The
/// owner starts the first thread; running threads start the further ones through `spawn`.
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

    /// Queues `function(argument)`. Raises RuntimeError after `stop()`.
    #[pyo3(signature = (function, argument = None))]
    fn put(
        &self,
        py: Python<'_>,
        function: Py<PyAny>,
        argument: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let argument = argument.unwrap_or_else(|| py.None());
        let job: Job = Box::new(move |_| Ok(Call::new(function, argument)));
        self.queue.push(job).map_err(|_| {
            PyRuntimeError::new_err("the worker queue has been stopped and takes no more jobs")
        })
    }

    /// Registers the calling thread as a worker, until the iterator ends.
    fn __iter__(jobs: &Bound<'_, Self>) -> JobRunner {
        let queue = &jobs.get().queue;
        JobRunner {
            jobs: jobs.clone().unbind(),
            queue: queue.clone(),
            worker: queue.register(),
            running: Mutex::new(Running::Nothing),
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

    /// Whether the queue refuses further jobs.
    #[getter]
    fn stopped(&self) -> bool {
        lock(&self.queue.state).scheduler.has_stopped()
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
    /// A queue for one thread, which runs its last jobs at the exit of the process.
    pub(crate) fn single_threaded() -> Self {
        Jobs {
            queue: Arc::new(JobQueue {
                runs_at_exit: true,
                ..JobQueue::new(1)
            }),
            spawn: Mutex::default(),
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.queue.stop(true);
    }
}

/// The jobs of one worker thread, as an iterator of functions and arguments.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct JobRunner {
    jobs: Py<Jobs>,
    queue: Arc<JobQueue>,
    worker: WorkerId,
    running: Mutex<Running>,
}

/// The call that a worker thread is making.
enum Running {
    Nothing,
    /// A job, with the guard of its call.
    Job(Option<Guard>),
    /// The start of another thread.
    Spawn,
}

#[pymethods]
impl JobRunner {
    fn __iter__(runner: Py<Self>) -> Py<Self> {
        runner
    }

    /// Waits for a job. Ends when the queue has been stopped.
    fn __next__(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        self.finish();
        loop {
            let step = self.queue.next_step(self.worker, UNSENT.take());
            step.flush.into_iter().flatten().for_each(Held::flush);
            match step.next {
                Next::Run(job) => {
                    // The panic hook has reported a panic.
                    let call = catch_unwind(AssertUnwindSafe(|| job(py)));
                    match call {
                        Ok(Ok(call)) => {
                            *lock(&self.running) = Running::Job(call.guard);
                            return Some((call.function, call.argument));
                        }
                        Ok(Err(error)) => report(error, py, None),
                        Err(_) => {}
                    }
                    self.queue.running.fetch_sub(1, Ordering::Release);
                }
                Next::StartThread => {
                    let spawn = lock(&self.jobs.get().spawn)
                        .as_ref()
                        .map(|spawn| spawn.clone_ref(py));
                    match spawn {
                        Some(spawn) => {
                            *lock(&self.running) = Running::Spawn;
                            return Some((spawn, self.jobs.clone_ref(py).into_any()));
                        }
                        None => lock(&self.queue.state).scheduler.thread_not_started(),
                    }
                }
                Next::Park => py.detach(|| {
                    self.queue.park(self.worker);
                    if !self.queue.runs_at_exit {
                        finalization::pause();
                    }
                }),
                Next::Stop => {
                    self.queue.leave(self.worker);
                    return None;
                }
            }
        }
    }

    /// Reports an exception of the latest function to `sys.unraisablehook`.
    fn failed(&self, py: Python<'_>, function: &Bound<'_, PyAny>, error: Bound<'_, PyAny>) {
        if matches!(*lock(&self.running), Running::Spawn) {
            lock(&self.queue.state).scheduler.thread_not_started();
        }
        report(PyErr::from_value(error), py, Some(function));
    }
}

impl JobRunner {
    /// Records the end of the latest job.
    fn finish(&self) {
        let running = std::mem::replace(&mut *lock(&self.running), Running::Nothing);
        if let Running::Job(guard) = running {
            drop(guard);
            self.queue.running.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Passes an exception to `sys.unraisablehook`.
fn report(error: PyErr, py: Python<'_>, function: Option<&Bound<'_, PyAny>>) {
    finalization::call_python(|| error.write_unraisable(py, function));
}

impl Drop for JobRunner {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The part of [`Jobs`] that is independent of Python: any thread may push.
pub(crate) struct JobQueue {
    state: Mutex<State>,
    /// Wakes the watchdog when jobs wait behind the hot thread, and when the queue is stopped.
    wake_watchdog: Condvar,
    /// The number of running jobs. A job is counted before the lock on `state` is released.
    running: AtomicUsize,
    /// Whether jobs still start when the interpreter is about to end.
    runs_at_exit: bool,
}

struct State {
    scheduler: Scheduler<Job>,
    /// The registered threads, to wake them.
    threads: BTreeMap<WorkerId, Thread>,
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
    flush: [Option<Held>; 2],
    next: Next<Job>,
}

impl JobQueue {
    pub(crate) fn new(max_threads: usize) -> Self {
        let state = State {
            scheduler: Scheduler::new(max_threads),
            threads: BTreeMap::new(),
            watchdog: None,
            check_scheduled: false,
            replies: ReplyBatch::default(),
        };
        JobQueue {
            state: Mutex::new(state),
            wake_watchdog: Condvar::new(),
            running: AtomicUsize::new(0),
            runs_at_exit: false,
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
    fn next_step(self: &Arc<Self>, worker: WorkerId, reply: Option<Held>) -> Step {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let was_short = state.scheduler.is_hot_worker(worker, now);
        let (next, woken) = state.scheduler.next(worker, now);
        let runs = matches!(next, Next::Run(_));
        if runs {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        let may_grow = runs && was_short && state.scheduler.next_check_at().is_some();
        let flush = state.replies.add(reply, may_grow);
        self.wake(state, woken);
        Step { flush, next }
    }

    /// Registers the calling thread as a worker.
    fn register(self: &Arc<Self>) -> WorkerId {
        let worker = {
            let mut state = lock(&self.state);
            let worker = state.scheduler.register();
            state.threads.insert(worker, std::thread::current());
            worker
        };
        CURRENT.set(Some((self.clone(), worker)));
        worker
    }

    /// Removes the calling thread.
    fn leave(&self, worker: WorkerId) {
        lock(&self.state).threads.remove(&worker);
        CURRENT.set(None);
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
            let woken = state.scheduler.check_stalled(Instant::now());
            if let Some(thread) = woken.and_then(|worker| state.threads.get(&worker)) {
                thread.unpark();
            }
            let pause = pace.after_check(&state.scheduler, woken.is_some());
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
    fn after_check(&mut self, scheduler: &Scheduler<Job>, stalled: bool) -> Option<Duration> {
        let started_jobs = scheduler.started_jobs();
        if scheduler.next_check_at().is_none() {
            self.idle_checks += 1;
            self.interval = MAX_CHECK_INTERVAL;
        } else {
            self.idle_checks = 0;
            self.interval = if stalled || started_jobs == self.started_jobs {
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
    static UNSENT: RefCell<Option<Held>> = const { RefCell::new(None) };

    /// Whether this thread, which runs no jobs, calls [`flush_replies`] soon.
    static HOLDS_REPLIES: Cell<bool> = const { Cell::new(false) };
}

/// Flushes a reply after the job of this thread; at once if the thread runs none and does not
/// [hold replies](hold_replies).
pub(crate) fn flush_after_job(unsent: Held) {
    let flush_now = if CURRENT.with_borrow(Option::is_none) && !HOLDS_REPLIES.get() {
        Some(unsent)
    } else {
        let earlier = UNSENT.replace(Some(unsent.clone()));
        earlier.filter(|earlier| !earlier.flushes_with(&unsent))
    };
    if let Some(unsent) = flush_now {
        unsent.flush();
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

/// Holds the replies and responses of this thread until it calls `flush_replies`. For a loop.
#[pyfunction]
pub(crate) fn hold_replies() {
    HOLDS_REPLIES.set(true);
}

/// Flushes the replies of this worker's job so far, because the next part may take long, or those
/// that this thread holds.
#[pyfunction]
pub(crate) fn flush_replies() {
    HOLDS_REPLIES.set(false);
    if let Some(unsent) = UNSENT.take() {
        unsent.flush();
    }
}
