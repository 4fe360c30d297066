//! Callbacks about connections, and log records: queued on any thread, run by the Python thread
//! `nameko-callbacks`.

use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::jobs::{Call, Job, JobQueue, Jobs};

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
    let queue = jobs.get().queue.clone();
    let spawn = py.import("nameko.utils.jobs")?.getattr("spawn_callbacks")?;
    let runner = Runner {
        pid,
        queue: queue.clone(),
        thread: spawn.call1((jobs,))?.unbind(),
    };
    let superfluous = {
        let mut slot = lock(&RUNNER);
        if slot.as_ref().is_some_and(is_current) {
            queue.stop(true);
            Some(runner)
        } else {
            slot.replace(runner)
        }
    };
    drop(superfluous);
    Ok(())
}

/// Queues a call of `callback` with the arguments that `arguments` returns. Drops it if the thread
/// is not running.
pub(crate) fn post<A>(
    callback: &Arc<Py<PyAny>>,
    arguments: impl FnOnce(Python<'_>) -> A + Send + 'static,
) where
    A: for<'py> IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
{
    let callback = callback.clone();
    let job: Job = Box::new(move |py| Call::with_arguments(py, &callback, arguments(py)));
    let queue = lock(&RUNNER).as_ref().map(|runner| runner.queue.clone());
    if let Some(queue) = queue
        && queue.pending() < MAX_QUEUED_CALLBACKS
    {
        let _ = queue.push(job);
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
