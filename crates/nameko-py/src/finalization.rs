//! The end of the interpreter, which other threads must not meet inside compiled frames.
//!
//! While it is finalized, a thread that needs the GIL ends by unwinding its stack. PyO3 hangs a
//! thread that returns to Python from a wait, but frames of this module below running Python code
//! abort the process. So no job runs below one (`nameko.utils.jobs`), and the few short calls into
//! Python go through [`call_python`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long [`begin`] waits for running calls.
const CALLS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a thread stays away from Python, so that it does not log failures of closed
/// connections at the last moment. A handler of `atexit` that waits for it waits as long.
const PAUSE: Duration = Duration::from_secs(5);

/// The thread that finalizes the interpreter; empty before its end.
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// The number of running calls into Python.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Announces the end of the interpreter, on the thread that finalizes it. Waits for running calls.
pub(crate) fn begin(py: Python<'_>) {
    let _ = MAIN.set(thread::current().id());
    py.detach(|| {
        let deadline = Instant::now() + CALLS_TIMEOUT;
        while CALLS.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Keeps a thread that would return to Python away from it, if the interpreter is about to end.
/// Called without the GIL.
pub(crate) fn pause() {
    if has_begun_elsewhere() {
        thread::sleep(PAUSE);
    }
}

/// Runs `call`, which may execute Python code. Returns None if the interpreter is about to end.
pub(crate) fn call_python<T>(call: impl FnOnce() -> T) -> Option<T> {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let _running = Running;
    (!has_begun_elsewhere()).then(call)
}

fn has_begun_elsewhere() -> bool {
    MAIN.get()
        .is_some_and(|main| *main != thread::current().id())
}

/// Counts a call until it is dropped.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}
