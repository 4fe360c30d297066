//! The I/O thread of the process: one Tokio runtime for all connections, started on demand.
//!
//! It never enters Python. A forked child starts its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use nameko::amqp::{ConnectOptions, Publisher};
use nameko::internal::lock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long [`shutdown`] waits for running name lookups.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The process that used the runtime first. Any other one is a forked child.
static FIRST_PID: OnceLock<u32> = OnceLock::new();

static IO: Mutex<Option<Io>> = Mutex::new(None);

/// The number of starts and ends of I/O threads.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Identifies an I/O thread, also across a fork.
pub(crate) type Generation = (u32, u64);

/// Returns the generation of the current I/O thread, or of the one to start.
pub(crate) fn generation() -> Generation {
    (std::process::id(), CHANGES.load(Ordering::Acquire))
}

struct Io {
    /// The process that started the thread: threads do not survive a fork.
    pid: u32,
    handle: Handle,
    /// Dropped or sent to end the thread.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    /// The publishers in use. A connection outlives the Python object that has opened it.
    publishers: HashMap<ConnectOptions, Publisher>,
}

/// Returns the handle of the runtime.
///
/// # Errors
///
/// RuntimeError if the system cannot provide a thread or an event queue.
pub(crate) fn handle() -> PyResult<Handle> {
    with_io(|io| io.handle.clone())
}

/// Returns the publisher of the process for `options`.
///
/// # Errors
///
/// RuntimeError as for [`handle`].
pub(crate) fn publisher(options: &ConnectOptions) -> PyResult<Publisher> {
    with_io(|io| {
        if let Some(publisher) = io.publishers.get(options) {
            return publisher.clone();
        }
        let publisher = if io.pid == *FIRST_PID.get_or_init(|| io.pid) {
            Publisher::shared(options)
        } else {
            Publisher::shared(&forked(options, io.pid))
        };
        io.publishers.insert(options.clone(), publisher.clone());
        publisher
    })
}

/// Closes the publishers and ends the I/O thread. Later calls start a new one.
pub(crate) fn shutdown() {
    let io = lock(&IO).take();
    CHANGES.fetch_add(1, Ordering::AcqRel);
    let Some(io) = io else { return };
    if io.pid != std::process::id() {
        std::mem::forget(io);
        return;
    }
    let closed: Vec<_> = io
        .publishers
        .into_values()
        .map(|publisher| io.handle.spawn(async move { publisher.close().await }))
        .collect();
    // `close` has its own timeout.
    for task in closed {
        let _ = io.handle.block_on(task);
    }
    let _ = io.stop.send(());
    let _ = io.thread.join();
}

/// Returns options with another connection name, so that a child does not share the connection of
/// its parent.
fn forked(options: &ConnectOptions, pid: u32) -> ConnectOptions {
    let name = options.connection_name.as_deref().unwrap_or("nameko");
    let connection_name = Some(format!("{name} (forked, process {pid})"));
    ConnectOptions {
        connection_name,
        ..options.clone()
    }
}

fn with_io<T>(action: impl FnOnce(&mut Io) -> T) -> PyResult<T> {
    let mut slot = lock(&IO);
    let pid = std::process::id();
    if slot.as_ref().is_none_or(|io| io.pid != pid) {
        let started = start(pid).map_err(|error| {
            PyRuntimeError::new_err(format!("cannot start the I/O thread: {error}"))
        })?;
        // A child cannot shut its parent's runtime down: the thread does not exist in it.
        if let Some(inherited) = slot.replace(started) {
            std::mem::forget(inherited);
        }
    }
    match slot.as_mut() {
        Some(io) => Ok(action(io)),
        None => Err(PyRuntimeError::new_err("the I/O thread has ended")),
    }
}

fn start(pid: u32) -> std::io::Result<Io> {
    CHANGES.fetch_add(1, Ordering::AcqRel);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("nameko-io".into())
        .spawn(move || {
            // Fails if the sender is dropped, which ends the thread too.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        })?;
    Ok(Io {
        pid,
        handle,
        stop,
        thread,
        publishers: HashMap::new(),
    })
}
