//! Detection of methods that block a thread of the runtime.
//!
//! Each poll of a worker is noted in a slot of its thread, which costs a few stores. A thread
//! outside of the runtime looks at the slots, while workers run. If a poll overstays on the I/O
//! thread, another one replaces it. If it overstays on a thread of the runtime, the watchdog keeps
//! the other threads awake, so that one of them watches timers and sockets, and moves connections
//! that the runtime itself runs. The method is remembered (`pace.rs`), and named in the log.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    amqp::{self, IoThreadId},
    container::is_own_thread,
    pace::Pace,
    sync::lock,
};

/// How often the slots are looked at while workers run.
const TICK: Duration = Duration::from_millis(20);
/// Duration of a poll from which another I/O thread replaces its own. With the ticks before and
/// after it, connections pause for less than 50 ms.
const REPLACE_AFTER: Duration = TICK;
/// Duration of a poll from which its method is known to block threads.
const BLOCKING_AFTER: Duration = Duration::from_millis(100);
/// Duration of a poll from which connections leave a runtime of one thread, for good. Shorter than
/// the shortest heartbeat, and long enough for a machine that is short of CPU.
const MOVE_AFTER: Duration = Duration::from_millis(500);
/// Duration of a poll from which its method is named in the log.
const WARN_AFTER: Duration = Duration::from_secs(1);
/// Time without a worker after which the watchdog sleeps.
const SLEEP_AFTER: Duration = Duration::from_secs(1);

/// The methods of one container, as the watchdog knows them.
pub(crate) struct Watch {
    /// Id of the first method; the others follow.
    first_id: u32,
    service: Arc<str>,
    methods: Vec<Method>,
    runtime: Handle,
}

struct Method {
    name: &'static str,
    pace: Pace,
}

impl Watch {
    /// Registers the methods of a container that runs on the current runtime.
    pub(crate) fn new(service: Arc<str>, methods: impl Iterator<Item = &'static str>) -> Arc<Self> {
        let watchdog = Watchdog::started();
        let mut watches = lock(&watchdog.watches);
        watches.retain(|watch| watch.strong_count() > 0);
        // Wraps around after four billion methods, long after the first containers are gone.
        let last = watches.iter().rev().find_map(Weak::upgrade);
        let first_id = last.map_or(1, |watch| watch.first_id.wrapping_add(watch.count()).max(1));
        let watch = Arc::new(Self {
            first_id,
            service,
            methods: methods
                .map(|name| Method {
                    name,
                    pace: Pace::default(),
                })
                .collect(),
            runtime: Handle::current(),
        });
        watches.push(Arc::downgrade(&watch));
        watch
    }

    /// Runs `worker`, a call of the method with this index.
    pub(crate) fn worker<F>(&self, index: usize, worker: F) -> Watched<'_, F> {
        Watched {
            method: self
                .first_id
                .wrapping_add(u32::try_from(index).unwrap_or(0)),
            pace: self.pace(index),
            worker,
        }
    }

    /// Returns the observed durations of the polls of a method.
    pub(crate) fn pace(&self, index: usize) -> Option<&Pace> {
        self.methods.get(index).map(|method| &method.pace)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.methods.len()).unwrap_or(u32::MAX)
    }

    fn method(&self, id: u32) -> Option<&Method> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        self.methods.get(index)
    }
}

pin_project_lite::pin_project! {
    /// A worker whose polls are noted.
    pub(crate) struct Watched<'w, F> {
        method: u32,
        pace: Option<&'w Pace>,
        #[pin]
        worker: F,
    }
}

impl<F: Future> Future for Watched<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let begun = Instant::now();
        let polled = SLOT.try_with(|slot| {
            let _polling = slot.begin(*this.method);
            this.worker.as_mut().poll(context)
        });
        if let Some(pace) = this.pace {
            pace.record(begun.elapsed());
        }
        // An error means that the thread ends.
        polled.unwrap_or_else(|_| this.worker.as_mut().poll(context))
    }
}

thread_local! {
    static SLOT: Arc<Slot> = {
        let slot = Arc::new(Slot::default());
        lock(&Watchdog::started().slots).push(Arc::downgrade(&slot));
        slot
    };
}

/// The poll that runs on one thread.
#[derive(Default)]
struct Slot {
    /// Method id in the upper half, number of the poll in the lower; 0 between polls.
    current: AtomicU64,
    /// Number of the last poll. Written by the thread itself only.
    polls: AtomicU64,
    /// Number of the I/O thread if this is one, else 0.
    io_thread: AtomicU32,
}

impl Slot {
    fn begin(&self, method: u32) -> Option<Polling<'_>> {
        if is_own_thread() {
            // Nobody else waits for this thread.
            return None;
        }
        let number = self.polls.load(Ordering::Relaxed).wrapping_add(1);
        self.polls.store(number, Ordering::Relaxed);
        let io_thread = amqp::io_thread_id().map_or(0, IoThreadId::to_number);
        self.io_thread.store(io_thread, Ordering::Relaxed);
        let outer = self.current.load(Ordering::Relaxed);
        let poll = u64::from(method) << 32 | number & u64::from(u32::MAX);
        self.current.store(poll, Ordering::Relaxed);
        Watchdog::wake();
        Some(Polling { slot: self, outer })
    }
}

/// A poll in progress, also if it panics.
struct Polling<'a> {
    slot: &'a Slot,
    /// The poll that this one is a part of.
    outer: u64,
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.slot.current.store(self.outer, Ordering::Relaxed);
    }
}

/// Whether the watchdog sleeps until the next poll of a worker.
static ASLEEP: AtomicBool = AtomicBool::new(false);

struct Watchdog {
    slots: Mutex<Vec<Weak<Slot>>>,
    watches: Mutex<Vec<Weak<Watch>>>,
    /// `None` if the system has no thread left.
    thread: OnceLock<Thread>,
}

impl Watchdog {
    /// Returns the watchdog of the process, started on first use.
    fn started() -> &'static Self {
        static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
        static STARTED: OnceLock<()> = OnceLock::new();
        let watchdog = WATCHDOG.get_or_init(|| Self {
            slots: Mutex::default(),
            watches: Mutex::default(),
            thread: OnceLock::new(),
        });
        STARTED.get_or_init(|| {
            let started = thread::Builder::new()
                .name("nameko-watchdog".to_owned())
                .spawn(|| watchdog.run());
            match started {
                Ok(thread) => {
                    let _ = watchdog.thread.set(thread.thread().clone());
                }
                Err(error) => tracing::warn!("methods that block are not detected: {error}"),
            }
        });
        watchdog
    }

    /// Wakes the watchdog if it sleeps.
    fn wake() {
        if ASLEEP.load(Ordering::Relaxed)
            && ASLEEP.swap(false, Ordering::AcqRel)
            && let Some(thread) = Self::started().thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self) {
        let mut polls: HashMap<*const Slot, LongPoll> = HashMap::new();
        let mut idle_since = Instant::now();
        loop {
            let slept_at = Instant::now();
            thread::sleep(TICK);
            let now = Instant::now();
            // The whole process was suspended or throttled: nobody has blocked a thread.
            let is_late = now.duration_since(slept_at) > 2 * TICK;
            let slots: Vec<Arc<Slot>> = {
                let mut slots = lock(&self.slots);
                slots.retain(|slot| slot.strong_count() > 0);
                slots.iter().filter_map(Weak::upgrade).collect()
            };
            let mut last_polls = std::mem::take(&mut polls);
            for slot in &slots {
                let number = slot.polls.load(Ordering::Relaxed);
                let current = slot.current.load(Ordering::Relaxed);
                let last = last_polls.remove(&Arc::as_ptr(slot));
                if last.as_ref().is_none_or(|last| last.number != number) {
                    idle_since = now;
                }
                let poll = match last {
                    Some(mut poll)
                        if is_late && poll.current == current && poll.number == number =>
                    {
                        poll.since += now.duration_since(slept_at);
                        poll
                    }
                    Some(poll) if poll.current == current && poll.number == number => poll,
                    last => {
                        if let Some(ended) = last {
                            ended.report_end(now);
                        }
                        LongPoll::new(current, number, now)
                    }
                };
                polls.insert(Arc::as_ptr(slot), poll);
            }
            for slot in &slots {
                if let Some(poll) = polls.get_mut(&Arc::as_ptr(slot))
                    && poll.current != 0
                {
                    idle_since = now;
                    let io_thread = slot.io_thread.load(Ordering::Relaxed);
                    self.check(poll, IoThreadId::from_number(io_thread), now);
                }
            }
            if now.duration_since(idle_since) > SLEEP_AFTER {
                ASLEEP.store(true, Ordering::Release);
                // A poll that began at this moment is noticed at the next look.
                thread::park_timeout(SLEEP_AFTER);
                ASLEEP.store(false, Ordering::Release);
            }
        }
    }

    /// Acts on a poll that overstays.
    fn check(&self, poll: &mut LongPoll, io_thread: Option<IoThreadId>, now: Instant) {
        let duration = now.duration_since(poll.since);
        let limit = io_thread.map_or(BLOCKING_AFTER, |_| REPLACE_AFTER);
        if duration < limit {
            return;
        }
        let Ok(id) = u32::try_from(poll.current >> 32) else {
            return;
        };
        let watches: Vec<_> = lock(&self.watches)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let found = watches
            .iter()
            .find_map(|watch| Some((watch, watch.method(id)?)));
        let Some((watch, method)) = found else {
            return;
        };
        if duration >= BLOCKING_AFTER {
            method.pace.record_blocking();
        } else {
            method.pace.record_long();
        }
        if let Some(io_thread) = io_thread {
            poll.moved = poll.moved || amqp::leave_io_thread(io_thread);
        } else {
            if duration >= MOVE_AFTER && !poll.moved {
                poll.moved = amqp::move_connections(watch.runtime.id());
            }
            // A free thread of the runtime runs it and then waits for timers and sockets, which the
            // blocked one may have done before.
            drop(watch.runtime.spawn(async {}));
        }
        if duration >= WARN_AFTER && poll.named.is_none() {
            let name = format!("{}.{}", watch.service, method.name);
            tracing::warn!(
                "{name} has blocked a thread of the runtime for {:.1} s: other calls wait if all \
                 threads are blocked; use `spawn_blocking` or an async library",
                duration.as_secs_f64()
            );
            poll.named = Some(name);
        }
    }
}

/// The last known poll of a slot.
struct LongPoll {
    current: u64,
    number: u64,
    since: Instant,
    /// Whether the connections have moved.
    moved: bool,
    /// The method, once it is named in the log.
    named: Option<String>,
}

impl LongPoll {
    fn new(current: u64, number: u64, since: Instant) -> Self {
        Self {
            current,
            number,
            since,
            moved: false,
            named: None,
        }
    }

    fn report_end(&self, now: Instant) {
        if let Some(name) = &self.named {
            let duration = now.duration_since(self.since).as_secs_f64();
            tracing::info!("{name} has blocked a thread of the runtime for {duration:.1} s");
        }
    }
}
