//! Callbacks about connections, and log records: queued on any thread, run by the Python thread
//! `nameko-callbacks`.

use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::jobs::{Job, JobQueue, Jobs};

/// The number of queued callbacks beyond which more are dropped. Reached only if one hangs.
const MAX_QUEUED_CALLBACKS: usize = 10_000;

static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);

struct Runner {
    /// The process that started the thread: threads do not survive a fork.
    pid: u32,
    queue: Arc<JobQueue>,
    thread: Py<PyAny>,
}

/// Starts the thread, unless it is running.
pub(crate) fn ensure_thread(py: Python<'_>) -> PyResult<()> {
    let pid = std::process::id();
    let is_current = |runner: &Runner| runner.pid == pid;
    if lock(&RUNNER).as_ref().is_some_and(is_current) {
        return Ok(());
    }
    let jobs = Bound::new(py, Jobs::single_threaded())?;
    let arguments = PyDict::new(py);
    arguments.set_item("target", jobs.getattr("run")?)?;
    arguments.set_item("name", "nameko-callbacks")?;
    arguments.set_item("daemon", true)?;
    let thread = py
        .import("threading")?
        .getattr("Thread")?
        .call((), Some(&arguments))?;
    let runner = Runner {
        pid,
        queue: jobs.get().queue.clone(),
        thread: thread.clone().unbind(),
    };
    let superfluous = {
        let mut slot = lock(&RUNNER);
        if slot.as_ref().is_some_and(is_current) {
            Some(runner)
        } else {
            slot.replace(runner)
        }
    };
    drop(superfluous);
    thread.call_method0("start").map(drop)
}

/// Queues a callback. Drops it if the thread is not running.
pub(crate) fn post(callback: Job) {
    let queue = lock(&RUNNER).as_ref().map(|runner| runner.queue.clone());
    if let Some(queue) = queue
        && queue.pending() < MAX_QUEUED_CALLBACKS
    {
        let _ = queue.push(callback);
    }
}

/// Runs the queued callbacks and joins the thread, within a second.
pub(crate) fn stop(py: Python<'_>) -> PyResult<()> {
    let Some(runner) = lock(&RUNNER).take() else {
        return Ok(());
    };
    if runner.pid != std::process::id() {
        return Ok(());
    }
    runner.queue.stop(false);
    runner.thread.call_method1(py, "join", (1.0,)).map(drop)
}
