//! The process's I/O thread: one Tokio runtime for every connection, made when first needed.
//!
//! Python is never entered on it. A forked child gets a runtime of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use nameko::amqp::{ConnectOptions, Publisher};
use nameko::internal::lock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{RwLock, oneshot};

/// How long name lookups that still run may keep [`shutdown`] waiting.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The process that used the runtime first; another one is a forked child.
static FIRST_PID: OnceLock<u32> = OnceLock::new();

static IO: Mutex<Option<Io>> = Mutex::new(None);

/// Counts the I/O threads that were started and ended.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Tells one I/O thread from the next, also across a fork.
pub(crate) type Generation = (u32, u64);

/// That of the I/O thread there is, or will be.
pub(crate) fn generation() -> Generation {
    (std::process::id(), CHANGES.load(Ordering::Acquire))
}

struct Io {
    /// The process it was made in: threads do not survive a fork.
    pid: u32,
    handle: Handle,
    /// Dropped or sent to end the thread.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    /// The publishers in use, kept so that a connection outlives the Python object that asked for it first.
    publishers: HashMap<ConnectOptions, Publisher>,
    /// Held for reading by each reply that is sent in the background.
    sending: Arc<RwLock<()>>,
}

/// The runtime's handle.
///
/// # Errors
///
/// RuntimeError when the system gives no thread or no event queue.
pub(crate) fn handle() -> PyResult<Handle> {
    with_io(|io| io.handle.clone())
}

/// The process's publisher for `options`.
///
/// # Errors
///
/// As [`handle`].
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

/// What replies that are sent in the background hold for reading.
///
/// # Errors
///
/// As [`handle`].
pub(crate) fn sending() -> PyResult<Arc<RwLock<()>>> {
    with_io(|io| io.sending.clone())
}

/// Closes the publishers and ends the I/O thread. Whatever is used afterwards starts anew.
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
    // `close` is bounded by itself.
    for task in closed {
        let _ = io.handle.block_on(task);
    }
    let _ = io.stop.send(());
    let _ = io.thread.join();
}

/// Options that are not the parent's, whose connection a child inherits and must not touch.
fn forked(options: &ConnectOptions, pid: u32) -> ConnectOptions {
    let name = options.connection_name.as_deref().unwrap_or("nameko");
    let connection_name = Some(format!("{name} (forked, process {pid})"));
    ConnectOptions {
        connection_name,
        ..options.clone()
    }
}

fn with_io<T>(use_it: impl FnOnce(&mut Io) -> T) -> PyResult<T> {
    let mut slot = lock(&IO);
    let pid = std::process::id();
    if slot.as_ref().is_none_or(|io| io.pid != pid) {
        let started = start(pid).map_err(|error| {
            PyRuntimeError::new_err(format!("cannot start the I/O thread: {error}"))
        })?;
        // The parent's runtime cannot be ended in its child: its thread is not here.
        if let Some(parents) = slot.replace(started) {
            std::mem::forget(parents);
        }
    }
    match slot.as_mut() {
        Some(io) => Ok(use_it(io)),
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
            // An error means that the sender is gone, which also ends the thread.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        })?;
    Ok(Io {
        pid,
        handle,
        stop,
        thread,
        publishers: HashMap::new(),
        sending: Arc::default(),
    })
}
