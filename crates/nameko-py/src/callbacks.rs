//! Callbacks about connections, and log records: queued on any thread, run by one Python thread, `nameko-callbacks`.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::jobs::{Job, JobQueue, Jobs};
use crate::lock::lock;

/// As many may wait to be run; more are dropped. Reached only when a callback hangs.
const MAX_QUEUED_CALLBACKS: usize = 10_000;

static CALLBACKS: Mutex<Option<Callbacks>> = Mutex::new(None);

struct Callbacks {
    /// The process it was made in: threads do not survive a fork.
    pid: u32,
    queue: Arc<JobQueue>,
    thread: Py<PyAny>,
}

/// Starts the thread, if it does not run.
pub(crate) fn ensure(py: Python<'_>) -> PyResult<()> {
    let pid = std::process::id();
    if lock(&CALLBACKS)
        .as_ref()
        .is_some_and(|callbacks| callbacks.pid == pid)
    {
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
    let callbacks = Callbacks {
        pid,
        queue: jobs.get().queue.clone(),
        thread: thread.clone().unbind(),
    };
    let superfluous = {
        let mut slot = lock(&CALLBACKS);
        if slot.as_ref().is_some_and(|running| running.pid == pid) {
            Some(callbacks)
        } else {
            slot.replace(callbacks)
        }
    };
    drop(superfluous);
    thread.call_method0("start").map(drop)
}

/// Queues something to run. Dropped when the thread does not run.
pub(crate) fn post(job: Job) {
    let queue = lock(&CALLBACKS)
        .as_ref()
        .map(|callbacks| callbacks.queue.clone());
    if let Some(queue) = queue
        && queue.pending() < MAX_QUEUED_CALLBACKS
    {
        // After the end nobody wants to know.
        let _ = queue.push(job);
    }
}

/// Runs what is queued and ends the thread, within a second.
pub(crate) fn end(py: Python<'_>) -> PyResult<()> {
    let Some(callbacks) = lock(&CALLBACKS).take() else {
        return Ok(());
    };
    if callbacks.pid != std::process::id() {
        return Ok(());
    }
    callbacks.queue.end(false);
    callbacks.thread.call_method1(py, "join", (1.0,)).map(drop)
}
