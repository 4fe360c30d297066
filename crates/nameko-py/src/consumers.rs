//! Everything that a container consumes.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use nameko::amqp::{self, Error, Observer, Subscription, SubscriptionId};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::callbacks;
use crate::convert;
use crate::delivery::replies_sent;
use crate::error::Failure;
use crate::jobs::{Job, Jobs};
use crate::lock::lock;
use crate::options::Options;
use crate::replies::ReplyTable;
use crate::runtime;
use crate::wait::{deadline, wait};

/// How long the connection may be lost before calls that wait for a reply fail.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// How long `stop` lets replies that are sent in the background get out.
const PENDING_REPLIES_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection with one channel for all queues of a container, kept alive. Deliveries become jobs of worker threads.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Consumers {
    inner: amqp::Consumers,
    listener: Arc<Listener>,
    /// The process it was made in: in a forked child nothing of it runs, and its connection is not the child's.
    process: u32,
    /// The subscriptions, by the position that Python knows them by.
    subscriptions: Mutex<Vec<SubscriptionId>>,
}

#[pymethods]
impl Consumers {
    /// `on_error(error, retry_in_seconds)` is called after each failed attempt to connect, `on_connected()` when
    /// everything is consumed; both on the thread `nameko-callbacks`.
    #[new]
    #[pyo3(signature = (options, on_error = None, on_connected = None))]
    fn new(
        py: Python<'_>,
        options: &Bound<'_, Options>,
        on_error: Option<Py<PyAny>>,
        on_connected: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        callbacks::ensure(py)?;
        let listener = Arc::new(Listener {
            callbacks: Mutex::new(Callbacks {
                on_error: on_error.map(Arc::new),
                on_connected: on_connected.map(Arc::new),
            }),
            replies: Mutex::default(),
            grace: Mutex::default(),
        });
        let inner = amqp::Consumers::new(options.get().connect.clone(), listener.clone());
        Ok(Consumers {
            inner,
            listener,
            process: std::process::id(),
            subscriptions: Mutex::default(),
        })
    }

    /// Consumes a queue: `handler(delivery)` runs as a job of `jobs`. Before the start, or while running.
    #[pyo3(signature = (queue, handler, jobs, prefetch = None))]
    fn add(
        &self,
        py: Python<'_>,
        queue: &Bound<'_, PyDict>,
        handler: Py<PyAny>,
        jobs: &Bound<'_, Jobs>,
        prefetch: Option<u16>,
    ) -> PyResult<usize> {
        jobs.get().ensure_thread(py)?;
        let (handler, jobs) = (Arc::new(handler), jobs.get().queue.clone());
        Ok(self.subscribe(Subscription {
            queue: convert::queue(queue)?,
            prefetch,
            sink: Arc::new(move |delivery| jobs.deliver(&handler, delivery)),
            on_recovered: None,
        }))
    }

    /// Connects, retrying until it works. True when every queue is consumed; False when it was stopped meanwhile, or
    /// after `timeout` seconds (it goes on trying then).
    #[pyo3(signature = (timeout = None))]
    fn start(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = deadline(timeout)?;
        let inner = self.inner.clone();
        // Spawned, so that it goes on when the wait ends.
        let started = runtime::handle()?.spawn(async move { inner.start().await });
        match wait(py, deadline, started)? {
            Some(Ok(Ok(()))) => Ok(true),
            Some(Ok(Err(Error::Stopped))) | None => Ok(false),
            Some(Ok(Err(error))) => Err(Failure::from(error).into_err(py)),
            // The runtime has ended under it.
            Some(Err(_)) => Ok(false),
        }
    }

    /// Ends a subscription; the queue is left. Deliveries that are here already still reach their handler.
    fn cancel(&self, py: Python<'_>, id: usize) -> PyResult<()> {
        let known = lock(&self.subscriptions).get(id).copied();
        let id = known.ok_or_else(|| PyKeyError::new_err(id))?;
        if self.is_forked_child() {
            return Ok(());
        }
        let inner = self.inner.clone();
        wait(
            py,
            None,
            runtime::handle()?.spawn(async move { inner.cancel(id).await }),
        )
        .map(drop)
    }

    /// Closes channel and connection, within a second once the replies sent in the background are out (five seconds at
    /// most). Calls that wait for a reply fail.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_forked_child() {
            return Ok(());
        }
        self.listener.end();
        let inner = self.inner.clone();
        let sending = runtime::sending()?;
        wait(
            py,
            None,
            runtime::handle()?.spawn(async move {
                replies_sent(sending, PENDING_REPLIES_TIMEOUT).await;
                inner.stop().await;
            }),
        )
        .map(drop)
    }

    /// Drops the connection at once: unacknowledged deliveries go back to their queues. Calls that wait for a reply fail.
    fn kill(&self) {
        if self.is_forked_child() {
            return;
        }
        self.listener.end();
        self.inner.kill();
    }

    /// Everything is consumed right now.
    #[getter]
    fn connected(&self) -> bool {
        self.inner.is_connected()
    }
}

impl Consumers {
    /// Whether this process is a forked child of the one that consumes.
    fn is_forked_child(&self) -> bool {
        self.process != std::process::id()
    }

    /// Adds a queue of replies.
    pub(crate) fn listen(&self, subscription: Subscription, table: &Arc<ReplyTable>) {
        lock(&self.listener.replies).push(Arc::downgrade(table));
        self.subscribe(subscription);
    }

    fn subscribe(&self, subscription: Subscription) -> usize {
        let id = self.inner.add(subscription);
        let mut subscriptions = lock(&self.subscriptions);
        subscriptions.push(id);
        subscriptions.len() - 1
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Hears how the connection fares, on the I/O thread.
struct Listener {
    /// Emptied at the end: they may hold whoever holds the consumers.
    callbacks: Mutex<Callbacks>,
    /// The calls to fail when replies can no longer come.
    replies: Mutex<Vec<Weak<ReplyTable>>>,
    /// Fails them when the connection stays lost; none while connected.
    grace: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Callbacks {
    on_error: Option<Arc<Py<PyAny>>>,
    on_connected: Option<Arc<Py<PyAny>>>,
}

impl Listener {
    fn end(&self) {
        let callbacks = std::mem::take(&mut *lock(&self.callbacks));
        drop(callbacks);
        self.set_grace_period(None);
        for table in self.tables() {
            table.end();
        }
    }

    fn tables(&self) -> Vec<Arc<ReplyTable>> {
        lock(&self.replies)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    fn set_grace_period(&self, task: Option<AbortHandle>) {
        let before = std::mem::replace(&mut *lock(&self.grace), task);
        if let Some(before) = before {
            before.abort();
        }
    }
}

impl Listener {
    /// Starts the grace period, if it does not run.
    fn start_grace_period(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut grace = lock(&self.grace);
        if grace.is_none() {
            let tables = lock(&self.replies).clone();
            *grace = Some(runtime.spawn(fail_after_grace(tables)).abort_handle());
        }
    }
}

/// Fails the calls that wait, each time the connection has been lost for another grace period.
async fn fail_after_grace(tables: Vec<Weak<ReplyTable>>) {
    let why = format!(
        "the connection to the broker has been lost for {} seconds: no reply came, and the call may have been carried out",
        GRACE_PERIOD.as_secs()
    );
    loop {
        tokio::time::sleep(GRACE_PERIOD).await;
        for table in tables.iter().filter_map(Weak::upgrade) {
            table.fail_all(&why);
        }
    }
}

impl Observer for Listener {
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        self.start_grace_period();
        let failure = Failure::from(error);
        if let Some(callback) = lock(&self.callbacks).on_error.clone() {
            callbacks::post(Job::Rust(Box::new(move |py| {
                let error = failure.into_err(py).into_value(py);
                callback
                    .call1(py, (error, retry_in.as_secs_f64()))
                    .map(drop)
            })));
        } else {
            tracing::warn!(
                "cannot consume: {error}; trying again in {:.1} seconds",
                retry_in.as_secs_f64()
            );
        }
    }

    fn connected(&self, reconnect: bool) {
        self.set_grace_period(None);
        if let Some(callback) = lock(&self.callbacks).on_connected.clone() {
            callbacks::post(Job::Rust(Box::new(move |py| callback.call0(py).map(drop))));
        }
        if reconnect {
            tracing::info!("connected to the broker again, every queue is consumed");
        }
    }

    fn lost(&self, error: &Error) {
        self.start_grace_period();
        tracing::warn!("{error}; connecting again");
    }
}
