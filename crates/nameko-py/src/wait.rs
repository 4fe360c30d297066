//! Interruptible waiting without the GIL.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::Handle;

use crate::finalization;
use crate::jobs;
use crate::runtime::{self, Generation};

/// How often a waiting thread checks for interrupts, such as Ctrl-C.
const INTERRUPT_CHECK: Duration = Duration::from_millis(100);

/// Drives `future` on this thread, detached from Python, until it is done. Returns `None` once
/// `deadline` has passed.
///
/// The future is dropped if the thread is interrupted. Work that must continue is spawned, and its
/// handle passed here.
///
/// # Errors
///
/// KeyboardInterrupt or another exception raised in this thread; RuntimeError if there is no I/O
/// thread, or it has ended meanwhile, as at the end of the process.
pub(crate) fn wait<F>(
    py: Python<'_>,
    deadline: Option<Instant>,
    future: F,
) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = Io {
        handle: runtime::handle()?,
        generation: runtime::generation(),
    };
    let wakeup = Arc::new(Wakeup {
        thread: std::thread::current(),
        woken: AtomicBool::new(true),
    });
    let waker = Waker::from(wakeup.clone());
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll(&runtime, future.as_mut(), &waker, &wakeup) {
        return output.map(Some).ok_or_else(ended);
    }
    jobs::about_to_block();
    loop {
        let until = earliest(deadline, Instant::now() + INTERRUPT_CHECK);
        let output = py.detach(|| {
            let output = drive(&runtime, future.as_mut(), &waker, &wakeup, until);
            finalization::pause();
            output
        });
        if let Some(output) = output {
            return output.map(Some).ok_or_else(ended);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(None);
        }
        check_interrupts(py)?;
    }
}

/// Returns the instant `timeout` seconds from now; none without a timeout, or if it is not
/// representable.
///
/// # Errors
///
/// ValueError if `timeout` is negative or NaN.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    match timeout {
        None => Ok(None),
        Some(seconds) if seconds >= 0.0 => Ok(Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|timeout| Instant::now().checked_add(timeout))),
        Some(seconds) => Err(PyValueError::new_err(format!(
            "a timeout must not be negative, but is {seconds}"
        ))),
    }
}

/// The I/O thread that a future depends on.
struct Io {
    handle: Handle,
    generation: Generation,
}

fn ended() -> PyErr {
    PyRuntimeError::new_err("the process closed its connections before the broker had answered")
}

struct Wakeup {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

/// Polls the future. The output is none if the I/O thread has ended: a timer of a runtime that was
/// shut down panics when polled.
fn poll<F: Future>(
    runtime: &Io,
    future: Pin<&mut F>,
    waker: &Waker,
    wakeup: &Wakeup,
) -> Poll<Option<F::Output>> {
    if runtime::generation() != runtime.generation {
        return Poll::Ready(None);
    }
    // Timers and spawns inside the future look the runtime up in a thread local.
    let _entered = runtime.handle.enter();
    wakeup.woken.store(false, Ordering::Release);
    future.poll(&mut Context::from_waker(waker)).map(Some)
}

fn drive<F: Future>(
    runtime: &Io,
    mut future: Pin<&mut F>,
    waker: &Waker,
    wakeup: &Wakeup,
    until: Instant,
) -> Option<Option<F::Output>> {
    loop {
        while !wakeup.woken.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            std::thread::park_timeout(left);
        }
        if let Poll::Ready(output) = poll(runtime, future.as_mut(), waker, wakeup) {
            return Some(output);
        }
    }
}

fn earliest(deadline: Option<Instant>, check: Instant) -> Instant {
    deadline.map_or(check, |deadline| deadline.min(check))
}

/// Raises the pending exception of this thread: KeyboardInterrupt on the main thread, elsewhere one
/// set with `PyThreadState_SetAsyncExc`. Python checks for both when it runs a function.
fn check_interrupts(py: Python<'_>) -> PyResult<()> {
    static NO_OP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let no_op = NO_OP.get_or_try_init(py, || {
        py.eval(c"lambda: None", None, None).map(Bound::unbind)
    })?;
    finalization::call_python(|| no_op.call0(py)).map_or(Ok(()), |called| called.map(drop))
}
