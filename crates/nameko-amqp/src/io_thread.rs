//! The I/O thread, which runs the connections of multi-thread runtimes.
//!
//! On the threads of such a runtime, each message would wake further threads. One thread runs all
//! connections instead, and polls the short tasks that their messages start. A round of it: wait
//! for sockets; dispatch what the reads have brought; poll the tasks that are ready; write the
//! output of all connections. The rounds are those of a Tokio runtime with one worker, whose hook
//! before parking is the second half. `block_in_place` is allowed in the hook, and hands nothing to
//! another thread there.
//!
//! If a task blocks the thread, [`leave_io_thread`](crate::leave_io_thread) lets another one take
//! over: the queue of tasks, the output and the connections belong to no thread.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime, RuntimeFlavor},
    sync::Notify,
    task::yield_now,
};

use crate::{connection_state::ConnectionState, sync::lock};

/// Number of polls after which a round ends, so that sockets are read and output leaves.
const MAX_POLLS: usize = 64;

/// Number of waiting tasks above which they are polled before all reads are dispatched.
const MAX_WAITING: usize = 1024;

/// Duration of the tasks of a round, as estimated in advance.
const MAX_RESERVED: Duration = Duration::from_micros(500);

/// All I/O threads so far: the active one, blocked ones, and spare ones that were blocked.
static THREADS: Mutex<Vec<Arc<IoThread>>> = Mutex::new(Vec::new());

/// Number of the active thread; 0 before the first.
static ACTIVE: AtomicU32 = AtomicU32::new(0);

/// Tasks to poll.
static READY: Mutex<VecDeque<Arc<Task>>> = Mutex::new(VecDeque::new());

/// Connections with output to write at the end of the round.
static UNFLUSHED: Mutex<Vec<Arc<ConnectionState>>> = Mutex::new(Vec::new());

/// Whether the active thread was woken for `READY` by another thread.
static NOTIFIED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Number of this I/O thread; 0 on other threads.
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    /// Time reserved in this round.
    static RESERVED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Whether the task being polled waits for a connection.
    static WAITS_FOR_CONNECTION: Cell<bool> = const { Cell::new(false) };
}

/// One I/O thread.
pub(crate) struct IoThread {
    runtime: Runtime,
    signals: Arc<Signals>,
}

struct Signals {
    /// From 1.
    number: u32,
    /// Whether the thread may be blocked.
    busy: AtomicBool,
    /// Starts a round.
    round: Notify,
    /// Whether sockets are to be read before that round.
    read_first: AtomicBool,
}

/// Identifies an I/O thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoThreadId(NonZeroU32);

impl IoThreadId {
    /// Returns a number, for atomic variables.
    pub fn to_number(self) -> u32 {
        self.0.get()
    }

    /// Returns the thread with a number.
    pub fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }
}

/// Returns the I/O thread that the caller runs on: in the sink of a connection, or in a task polled
/// by [`run_on_io_thread`]. `None` on other threads, and on one that was
/// [left](crate::leave_io_thread).
pub fn io_thread_id() -> Option<IoThreadId> {
    let current = CURRENT.get();
    let is_active = current == ACTIVE.load(Ordering::Acquire);
    IoThreadId::from_number(current).filter(|_| is_active)
}

pub(crate) fn is_io_thread() -> bool {
    io_thread_id().is_some()
}

/// Polls `task` on the I/O thread once the current read is dispatched. For sinks.
///
/// While it [waits for a connection](waits_for_connection), it stays there. Once it waits for
/// anything else, it continues as a task of the current runtime. It is polled in the context of
/// that runtime from the beginning.
///
/// # Errors
///
/// The task, if the caller is not on the I/O thread, or the current runtime has one thread.
pub fn run_on_io_thread(
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> Result<(), Pin<Box<dyn Future<Output = ()> + Send>>> {
    match Handle::try_current() {
        Ok(home) if is_io_thread() && home.runtime_flavor() == RuntimeFlavor::MultiThread => {
            let task = Task {
                future: Mutex::new(Some(task)),
                state: AtomicU8::new(QUEUED),
                home,
            };
            lock(&READY).push_back(Arc::new(task));
            Ok(())
        }
        _ => Err(task),
    }
}

/// Reserves time on the I/O thread for a poll, if little has been reserved since the last read.
/// Returns `false` if the poll should take place on another thread.
pub fn reserve_io_time(duration: Duration) -> bool {
    let reserved = RESERVED.get();
    let fits = reserved.is_zero() || reserved + duration <= MAX_RESERVED;
    if fits {
        RESERVED.set(reserved + duration);
    }
    fits
}

/// Notes that the task being polled waits for an event of a connection, such as a confirm.
/// [`Confirm`](crate::Confirm) does so by itself. To be called in each poll that returns `Pending`.
pub fn waits_for_connection() {
    WAITS_FOR_CONNECTION.set(true);
}

/// Writes the output of `connection` at the end of the round. To be called on the I/O thread.
pub(crate) fn flush_later(connection: Arc<ConnectionState>) {
    lock(&UNFLUSHED).push(connection);
}

/// Returns the active thread, started on first use. `None` if the system has no thread or event
/// queue left.
pub(crate) fn active() -> Option<Arc<IoThread>> {
    let mut threads = lock(&THREADS);
    let number = ACTIVE.load(Ordering::Acquire);
    if let Some(active) = threads.iter().find(|thread| thread.number() == number) {
        return Some(Arc::clone(active));
    }
    activate(&mut threads)
}

/// Lets another thread take over from a blocked one, and returns the active thread.
pub(crate) fn replace(blocked: IoThreadId) -> Option<Arc<IoThread>> {
    let mut threads = lock(&THREADS);
    let number = ACTIVE.load(Ordering::Acquire);
    let active = threads.iter().find(|thread| thread.number() == number)?;
    if number != blocked.to_number() {
        return Some(Arc::clone(active));
    }
    active.signals.busy.store(true, Ordering::Release);
    activate(&mut threads)
}

/// Activates a spare thread, or a new one.
fn activate(threads: &mut Vec<Arc<IoThread>>) -> Option<Arc<IoThread>> {
    let spare = threads
        .iter()
        .find(|thread| !thread.signals.busy.load(Ordering::Acquire));
    let thread = match spare {
        Some(spare) => Arc::clone(spare),
        None => {
            let number = u32::try_from(threads.len()).ok()?.checked_add(1)?;
            let started = Arc::new(IoThread::start(number)?);
            threads.push(Arc::clone(&started));
            started
        }
    };
    ACTIVE.store(thread.number(), Ordering::Release);
    thread.signals.round.notify_one();
    Some(thread)
}

/// Wakes the active thread from another one.
fn wake() {
    if NOTIFIED.swap(true, Ordering::AcqRel) {
        return;
    }
    let threads = lock(&THREADS);
    let number = ACTIVE.load(Ordering::Acquire);
    if let Some(active) = threads.iter().find(|thread| thread.number() == number) {
        active.signals.round.notify_one();
    }
}

impl IoThread {
    fn start(number: u32) -> Option<Self> {
        let signals = Arc::new(Signals {
            number,
            busy: AtomicBool::new(false),
            round: Notify::new(),
            read_first: AtomicBool::new(false),
        });
        let hook = Arc::clone(&signals);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nameko-io")
            .enable_all()
            .on_thread_park(move || hook.run_ready())
            .build()
            .ok()?;
        let rounds = Arc::clone(&signals);
        // Ends with the process, as the runtime does.
        runtime.spawn(async move {
            loop {
                rounds.round.notified().await;
                if rounds.read_first.swap(false, Ordering::Relaxed) {
                    // Yielding reads the sockets.
                    yield_now().await;
                }
            }
        });
        Some(Self { runtime, signals })
    }

    pub(crate) fn number(&self) -> u32 {
        self.signals.number
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }
}

impl Signals {
    /// Polls the tasks that are ready, then writes the output of all connections.
    fn run_ready(&self) {
        CURRENT.set(self.number);
        RESERVED.set(Duration::ZERO);
        if self.is_active() {
            NOTIFIED.store(false, Ordering::SeqCst);
            self.busy.store(true, Ordering::Relaxed);
            if self.poll_tasks() {
                self.read_first.store(true, Ordering::Relaxed);
                self.round.notify_one();
            }
            if self.is_active() {
                flush();
            }
        }
        self.busy.store(false, Ordering::Release);
    }

    /// Returns whether tasks are left.
    fn poll_tasks(&self) -> bool {
        for _ in 0..MAX_POLLS {
            let Some(task) = next_task() else {
                return false;
            };
            task.poll();
            // Another thread has taken over.
            if !self.is_active() {
                return false;
            }
        }
        true
    }

    fn is_active(&self) -> bool {
        ACTIVE.load(Ordering::Acquire) == self.number
    }
}

/// Polls tasks if reads keep the I/O thread from doing so. To be called between reads.
pub(crate) fn poll_overdue() {
    if is_io_thread() && lock(&READY).len() > MAX_WAITING {
        while is_io_thread()
            && let Some(task) = next_task()
        {
            task.poll();
        }
    }
}

fn next_task() -> Option<Arc<Task>> {
    lock(&READY).pop_front()
}

fn flush() {
    // Under the lock, which only this thread takes: a failed write wakes the writer and no more.
    for connection in lock(&UNFLUSHED).drain(..) {
        connection.flush_deferred();
    }
}

/// A task polled by the I/O thread.
struct Task {
    /// `None` once it has ended or moved to `home`.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    state: AtomicU8,
    /// The runtime in whose context it runs.
    home: Handle,
}

/// States of a task.
const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const POLLED: u8 = 2;
/// Woken while it is being polled.
const WOKEN: u8 = 3;

impl Task {
    fn poll(self: Arc<Self>) {
        let Some(mut future) = lock(&self.future).take() else {
            return;
        };
        self.state.swap(POLLED, Ordering::AcqRel);
        let _home = self.home.enter();
        let waker = Waker::from(Arc::clone(&self));
        WAITS_FOR_CONNECTION.set(false);
        let poll = || future.as_mut().poll(&mut Context::from_waker(&waker));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) if WAITS_FOR_CONNECTION.get() => self.keep(future),
            Ok(Poll::Pending) => drop(self.home.spawn(future)),
            Ok(Poll::Ready(())) => {}
            // As in a task of the runtime: the panic hook has reported it.
            Err(_) => drop(catch_unwind(AssertUnwindSafe(|| drop(future)))),
        }
    }

    /// Keeps the task until it is woken.
    fn keep(self: Arc<Self>, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        *lock(&self.future) = Some(future);
        let idle = self
            .state
            .compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if idle.is_err() {
            self.state.store(QUEUED, Ordering::Release);
            self.enqueue();
        }
    }

    fn enqueue(self: Arc<Self>) {
        lock(&READY).push_back(self);
        if !is_io_thread() {
            wake();
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let woken = |state| match state {
            IDLE => Some(QUEUED),
            POLLED => Some(WOKEN),
            // Written as well, so that the next poll sees the effects of this thread.
            other => Some(other),
        };
        let was = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, woken);
        if was == Ok(IDLE) {
            self.enqueue();
        }
    }
}
