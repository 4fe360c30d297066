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
use crate::lane::{Lane, PATIENCE, Seat, Turn};
use crate::lock::lock;

/// The longest time between two looks of the watchdog while jobs wait behind a hot thread that makes progress.
const SLOWEST_WATCH: Duration = Duration::from_millis(2);

/// How often the watchdog looks by itself when there is nothing to watch any more. In busy times there soon is again, and
/// being woken for it costs more.
const IDLE_LOOKS: u32 = 4;

/// As many replies are sent together, at most.
const TOGETHER: u32 = 8;

/// One thing for a worker thread to do.
pub(crate) enum Job {
    /// Call the handler with the delivery.
    Deliver(Arc<Py<PyAny>>, Box<nameko::amqp::Delivery>),
    /// Call it without arguments.
    Call(Py<PyAny>),
    /// Something of this crate's own.
    Native(Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>),
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
            Job::Native(action) => (None, action(py)),
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
            let Next {
                turn,
                wants_thread,
                unsent,
            } = self.queue.take(worker.seat, UNSENT.take());
            unsent.into_iter().flatten().for_each(Unsent::flush);
            if wants_thread && let Err(error) = self.start_thread(py) {
                error.write_unraisable(py, None);
            }
            match turn {
                Turn::Run(job) => {
                    // A panic has been reported by the panic hook.
                    let _ = catch_unwind(AssertUnwindSafe(|| job.run(py)));
                    self.queue.running.fetch_sub(1, Ordering::Release);
                }
                Turn::Park => py.detach(|| self.queue.park(worker.seat)),
                Turn::End => return,
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
    pub(crate) fn alone() -> Self {
        Jobs {
            queue: Arc::new(JobQueue::new(1)),
            spawn: Mutex::default(),
        }
    }

    /// Starts the first thread, if there is none. Later ones are started by the threads themselves.
    pub(crate) fn ensure_thread(&self, py: Python<'_>) -> PyResult<()> {
        let wanted = {
            let lane = &mut lock(&self.queue.state).lane;
            lane.is_deserted() && lane.wants_thread()
        };
        if wanted {
            self.start_thread(py)
        } else {
            Ok(())
        }
    }

    /// Calls `spawn` for a thread that the lane counts as started already.
    fn start_thread(&self, py: Python<'_>) -> PyResult<()> {
        let spawn = lock(&self.spawn).as_ref().map(|spawn| spawn.clone_ref(py));
        match spawn {
            Some(spawn) => spawn.call0(py).map(drop),
            None => Err(PyRuntimeError::new_err("the worker queue has been stopped")),
        }
        .inspect_err(|_| lock(&self.queue.state).lane.not_started())
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
    lane: Lane<Job>,
    /// The threads that have a seat, to wake them.
    seats: HashMap<Seat, Thread>,
    /// A plain thread that calls another worker when the hot one is stuck. Started when first needed, ended with the queue.
    watchdog: Option<JoinHandle<()>>,
    /// The watchdog will look again by itself: nobody needs to wake it.
    watched: bool,
    /// What the jobs of the hot thread published, and how many of them, to be sent with what those behind them publish.
    unsent: Option<(Unsent, u32)>,
}

/// What a thread does next.
struct Next {
    turn: Turn<Job>,
    /// It starts another thread before.
    wants_thread: bool,
    /// It has these sent before.
    unsent: [Option<Unsent>; 2],
}

impl JobQueue {
    pub(crate) fn new(max_threads: usize) -> Self {
        let state = State {
            lane: Lane::new(max_threads),
            seats: HashMap::new(),
            watchdog: None,
            watched: false,
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
        let woken = state.lane.push(job, Instant::now())?;
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
        lock(&self.state).lane.pending()
    }

    fn unfinished(&self) -> usize {
        let state = lock(&self.state);
        state.lane.pending() + self.running.load(Ordering::Acquire)
    }

    /// Ends the queue and its watchdog.
    pub(crate) fn end(&self, discard: bool) {
        let (threads, jobs, watchdog) = {
            let mut state = lock(&self.state);
            let (woken, jobs) = state.lane.end(discard);
            let threads: Vec<Thread> = woken
                .iter()
                .filter_map(|seat| state.seats.get(seat).cloned())
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

    /// The thread's next turn. `unsent`: what its last job published.
    ///
    /// That is sent at once when nothing waits behind the job. In a storm of short jobs several are sent together; should
    /// the next job not be short, the watchdog, which looks anyway, has them sent.
    fn take(self: &Arc<Self>, seat: Seat, unsent: Option<Unsent>) -> Next {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let quick = state.lane.is_quick(seat, now);
        let turn = state.lane.take(seat, now);
        let runs = matches!(turn, Turn::Run(_));
        if runs {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        let wants_thread = runs && state.lane.wants_thread();
        let (before, count) = state.unsent.take().unzip();
        let mut next = Next {
            turn,
            wants_thread,
            unsent: [before, unsent],
        };
        let count = count.unwrap_or(0) + 1;
        let waits = runs && quick && state.lane.watch_at().is_some() && count < TOGETHER;
        if waits && let [before, Some(last)] = &mut next.unsent {
            let together = before.as_ref().is_none_or(|before| before.is_with(last));
            if together {
                state.unsent = Some((last.clone(), count));
                next.unsent = [None, None];
            }
        }
        self.wake(state, None);
        next
    }

    /// Sleeps until the lane calls this thread.
    fn park(&self, seat: Seat) {
        while lock(&self.state).lane.is_parked(seat) {
            std::thread::park();
        }
    }

    /// Wakes a worker that was called, and the watchdog if it is needed.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>, called: Option<Seat>) {
        let thread = called.and_then(|seat| state.seats.get(&seat).cloned());
        let watch = !state.watched && state.lane.watch_at().is_some();
        if watch {
            state.watched = true;
            if state.watchdog.is_none() {
                let queue = self.clone();
                let thread = std::thread::Builder::new().name("nameko-watchdog".into());
                // Out of threads: jobs behind a stuck one wait for it, and the next push tries again.
                state.watchdog = thread.spawn(move || queue.watch()).ok();
                state.watched = state.watchdog.is_some();
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
        let (mut seen, mut pause, mut idle) = (0, PATIENCE, 0);
        let mut state = lock(&self.state);
        while !state.lane.has_ended() {
            if let Some((unsent, _)) = state.unsent.take() {
                drop(state);
                unsent.flush();
                state = lock(&self.state);
            }
            if let Some(seat) = state.lane.watch(Instant::now())
                && let Some(thread) = state.seats.get(&seat)
            {
                thread.unpark();
            }
            if state.lane.watch_at().is_none() {
                (idle, pause) = (idle + 1, SLOWEST_WATCH);
            } else if state.lane.begun() == seen {
                (idle, pause) = (0, PATIENCE);
            } else {
                // While jobs are begun all the time the looks become rarer: a storm of short jobs needs no watching.
                (idle, pause) = (0, (pause * 2).min(SLOWEST_WATCH));
            }
            seen = state.lane.begun();
            state.watched = idle <= IDLE_LOOKS;
            state = if state.watched {
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
    /// The queue and the seat of the worker thread this is, if it is one.
    static CURRENT: RefCell<Option<(Arc<JobQueue>, Seat)>> = const { RefCell::new(None) };

    /// What the job of this thread published.
    static UNSENT: RefCell<Option<Unsent>> = const { RefCell::new(None) };
}

/// Has it sent when the job that this thread runs is over; at once where it runs none.
pub(crate) fn flush_later(unsent: Unsent) {
    let now = if CURRENT.with_borrow(Option::is_none) {
        Some(unsent)
    } else {
        let before = UNSENT.replace(Some(unsent.clone()));
        before.filter(|before| !before.is_with(&unsent))
    };
    if let Some(unsent) = now {
        unsent.flush();
    }
}

/// A thread's stay in a queue.
struct Worker {
    queue: Arc<JobQueue>,
    seat: Seat,
    /// The queue it worked for before, when `run()` was called inside a job.
    outer: Option<(Arc<JobQueue>, Seat)>,
}

impl Worker {
    fn enter(queue: &Arc<JobQueue>) -> Self {
        let mut state = lock(&queue.state);
        let seat = state.lane.arrive();
        state.seats.insert(seat, std::thread::current());
        drop(state);
        let outer = CURRENT.replace(Some((queue.clone(), seat)));
        Worker {
            queue: queue.clone(),
            seat,
            outer,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.queue.state).seats.remove(&self.seat);
        CURRENT.set(self.outer.take());
    }
}

/// Says that the job of this thread is nearly over. What its end leads to comes soon after, and is left to this thread
/// even though the job took its time: a second one would only fight with it for the GIL.
pub(crate) fn nearly_over() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, seat)) = current {
        lock(&queue.state).lane.renew(seat, Instant::now());
    }
}

/// Says that this thread is about to wait: if it is a worker, another one takes the jobs behind its own.
pub(crate) fn about_to_block() {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some((queue, seat)) = current {
        let mut state = lock(&queue.state);
        let called = state.lane.block(seat);
        let before = state.unsent.take().map(|(unsent, _)| unsent);
        queue.wake(state, called);
        for unsent in [before, UNSENT.take()].into_iter().flatten() {
            unsent.flush();
        }
    }
}
