//! Ends a process whose stop cannot proceed, as methods block all threads of the runtime.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

/// How often the runtime is checked.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Time beyond `stop_timeout` for a stop that proceeds by itself.
const MARGIN: Duration = Duration::from_secs(1);
/// Time for the exit after a second signal.
const FORCED_EXIT: Duration = Duration::from_secs(2);

/// Watches a stop from a thread of its own. Dropping it ends the watch.
pub(super) struct StopGuard {
    stop_timeout: Duration,
    watch: Option<Watch>,
}

struct Watch {
    /// Exit code after a second signal, 0 before one.
    forced: Arc<AtomicU64>,
    _ended: mpsc::Sender<()>,
}

impl StopGuard {
    pub(super) fn new(stop_timeout: Duration) -> Self {
        Self {
            stop_timeout,
            watch: None,
        }
    }

    /// Records a reason to stop, with the exit code of a signal. The first one starts the watch, a
    /// second signal forces the exit.
    pub(super) fn stopping(&mut self, exit_code: Option<u8>) {
        match (&self.watch, exit_code) {
            (None, _) => self.watch = watch(self.stop_timeout),
            (Some(watch), Some(code)) => watch.forced.store(code.into(), Ordering::Relaxed),
            (Some(_), None) => {}
        }
    }
}

/// Starts the watch. `None` if the system has no thread left.
fn watch(stop_timeout: Duration) -> Option<Watch> {
    let runtime = Handle::current();
    let forced = Arc::new(AtomicU64::new(0));
    let (sender, ended) = mpsc::channel();
    let code = Arc::clone(&forced);
    let run = move || {
        let deadline = Instant::now() + stop_timeout + MARGIN;
        let mut forced_at = None;
        loop {
            // Dropped unrun while all threads are blocked.
            let (ran, running) = mpsc::channel();
            drop(runtime.spawn(async move { ran.send(()) }));
            match ended.recv_timeout(PROBE_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
            let now = Instant::now();
            let code = code.load(Ordering::Relaxed);
            if code != 0 && now.duration_since(*forced_at.get_or_insert(now)) >= FORCED_EXIT {
                process::exit(i32::try_from(code).unwrap_or(1));
            }
            if now >= deadline && running.try_recv().is_err() {
                tracing::error!(
                    target: "nameko::run",
                    "methods still block all threads after {stop_timeout:?} (stop_timeout): exiting; \
                     their messages are requeued"
                );
                process::exit(0);
            }
        }
    };
    let started = thread::Builder::new()
        .name("nameko-stop".to_owned())
        .spawn(run);
    started.ok().map(|_| Watch {
        forced,
        _ended: sender,
    })
}
