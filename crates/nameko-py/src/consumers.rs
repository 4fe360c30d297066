//! The consumers of a container: one connection and one channel for all of its queues.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nameko::amqp::{self, Error, Observer, Subscription, SubscriptionId};
use nameko::internal::lock;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::callbacks;
use crate::convert;
use crate::delivery::{Delivery, Sending, replies_sent};
use crate::error::Failure;
use crate::jobs::{Call, Job, Jobs};
use crate::loop_deliveries::LoopDeliveries;
use crate::options::Options;
use crate::reply_table::ReplyTable;
use crate::runtime;
use crate::wait::{deadline, wait};

/// How long `stop` waits for replies that are sent in the background.
const PENDING_REPLIES_TIMEOUT: Duration = Duration::from_secs(5);

/// How long `kill` waits for them.
const CONFIRMING_REPLIES_TIMEOUT: Duration = Duration::from_millis(250);

/// One connection with one channel for all queues of a container, kept alive. Deliveries become
/// jobs of worker threads.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Consumers {
    inner: amqp::Consumers,
    listener: Arc<Listener>,
    /// The process that created it: a forked child has no I/O thread for the connection, and must
    /// not touch it.
    process: u32,
    /// The subscriptions, by their index in Python.
    subscriptions: Mutex<Vec<SubscriptionId>>,
    /// The replies to the requests of these consumers.
    sending: Sending,
}

#[pymethods]
impl Consumers {
    /// `on_error(error, retry_in_seconds)` is called after each failed attempt to connect,
    /// `on_connected()` once everything is consumed; both on the thread `nameko-callbacks`.
    #[new]
    #[pyo3(signature = (options, on_error = None, on_connected = None))]
    fn new(
        py: Python<'_>,
        options: &Bound<'_, Options>,
        on_error: Option<Py<PyAny>>,
        on_connected: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        callbacks::ensure_thread(py)?;
        let listener = Arc::new(Listener {
            callbacks: Mutex::new(Callbacks {
                on_error: on_error.map(Arc::new),
                on_connected: on_connected.map(Arc::new),
            }),
            reply_tables: Mutex::default(),
        });
        let inner = amqp::Consumers::new(options.get().connect.clone(), listener.clone());
        Ok(Consumers {
            inner,
            listener,
            process: std::process::id(),
            subscriptions: Mutex::default(),
            sending: Sending::default(),
        })
    }

    /// Consumes a queue: `handler(delivery)` runs as a job of `jobs`, except for the deliveries
    /// that `on_loop` accepts. May be called before the start and while running.
    #[pyo3(signature = (queue, handler, jobs, prefetch = None, on_loop = None))]
    fn add(
        &self,
        queue: &Bound<'_, PyDict>,
        handler: Py<PyAny>,
        jobs: &Bound<'_, Jobs>,
        prefetch: Option<u16>,
        on_loop: Option<&Bound<'_, LoopDeliveries>>,
    ) -> PyResult<usize> {
        let (handler, jobs) = (Arc::new(handler), jobs.get().queue.clone());
        let sending = self.sending.clone();
        let on_loop = on_loop.map(|deliveries| deliveries.get().state());
        Ok(self.subscribed(self.inner.add(Subscription {
            queue: convert::queue(queue)?,
            prefetch,
            sink: Arc::new(move |delivery| {
                let on_loop = on_loop
                    .as_ref()
                    .filter(|deliveries| deliveries.accepts(&delivery.routing_key));
                let unhandled = Unhandled {
                    delivery: Some(delivery),
                    sending: sending.clone(),
                };
                match on_loop {
                    Some(deliveries) => deliveries.push(unhandled),
                    // A job that a stopped queue refuses is dropped, which requeues the delivery.
                    None => drop(jobs.push(handler_job(&handler, unhandled))),
                }
            }),
            on_recovered: None,
        })))
    }

    /// Connects, with retries. Returns true once every queue is consumed; false if stopped
    /// meanwhile, or after `timeout` seconds, when it keeps trying in the background.
    #[pyo3(signature = (timeout = None))]
    fn start(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = deadline(timeout)?;
        let inner = self.inner.clone();
        // Spawned, so that it outlives the wait.
        let started = runtime::handle()?.spawn(async move { inner.start().await });
        match wait(py, deadline, started)? {
            Some(Ok(Ok(()))) => Ok(true),
            Some(Ok(Err(Error::Stopped))) | None => Ok(false),
            Some(Ok(Err(error))) => Err(Failure::from(error).into_err(py)),
            // The runtime was shut down.
            Some(Err(_)) => Ok(false),
        }
    }

    /// Ends a subscription and leaves the queue in place. Deliveries that have arrived still reach
    /// their handler.
    fn cancel(&self, py: Python<'_>, id: usize) -> PyResult<()> {
        let known = lock(&self.subscriptions).get(id).copied();
        let id = known.ok_or_else(|| PyKeyError::new_err(id))?;
        if self.is_forked_child() {
            return Ok(());
        }
        let inner = self.inner.clone();
        let cancelled = runtime::handle()?.spawn(async move { inner.cancel(id).await });
        wait(py, None, cancelled).map(drop)
    }

    /// Closes channel and connection, within a second after the replies in the background are sent,
    /// for which it waits up to five seconds. Pending calls fail.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_forked_child() {
            return Ok(());
        }
        self.listener.close();
        let inner = self.inner.clone();
        let sending = self.sending.clone();
        let stopped = runtime::handle()?.spawn(async move {
            replies_sent(&sending, PENDING_REPLIES_TIMEOUT).await;
            inner.stop().await;
        });
        wait(py, None, stopped).map(drop)
    }

    /// Drops the connection: the broker requeues unacknowledged deliveries. Pending calls fail.
    /// Waits for replies that are being confirmed, at most a quarter of a second.
    fn kill(&self, py: Python<'_>) {
        if self.is_forked_child() {
            return;
        }
        if self.sending.try_write().is_err() {
            let deadline = Instant::now() + CONFIRMING_REPLIES_TIMEOUT;
            // An interrupt ends the wait early.
            let _ = wait(py, Some(deadline), self.sending.write());
        }
        self.drop_connection();
    }

    /// Whether every queue is being consumed.
    #[getter]
    fn connected(&self) -> bool {
        self.inner.is_connected()
    }
}

impl Consumers {
    fn is_forked_child(&self) -> bool {
        self.process != std::process::id()
    }

    fn drop_connection(&self) {
        if !self.is_forked_child() {
            self.listener.close();
            self.inner.kill();
        }
    }

    /// Consumes a reply queue.
    pub(crate) fn listen(&self, subscription: Subscription, table: &Arc<ReplyTable>) {
        lock(&self.listener.reply_tables).push(Arc::downgrade(table));
        self.subscribed(self.inner.add_temporary(subscription));
    }

    /// Returns the index of a subscription in Python.
    fn subscribed(&self, id: SubscriptionId) -> usize {
        let mut subscriptions = lock(&self.subscriptions);
        subscriptions.push(id);
        subscriptions.len() - 1
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.drop_connection();
    }
}

/// A delivery before the call of its handler. Requeues it on drop.
pub(crate) struct Unhandled {
    delivery: Option<amqp::Delivery>,
    sending: Sending,
}

impl Unhandled {
    pub(crate) fn into_python(mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let sending = self.sending.clone();
        let delivery = self.delivery.take();
        let delivery = delivery.map(|delivery| Delivery::new(delivery, Some(sending)));
        Ok(delivery.into_pyobject(py)?.unbind())
    }
}

impl Drop for Unhandled {
    fn drop(&mut self) {
        if let Some(delivery) = &self.delivery {
            delivery.acker.reject(true);
        }
    }
}

/// Returns the job that calls `handler` with a delivery.
fn handler_job(handler: &Arc<Py<PyAny>>, unhandled: Unhandled) -> Job {
    let handler = handler.clone();
    Box::new(move |py| {
        let delivery = unhandled.into_python(py)?;
        Ok(Call::new(handler.clone_ref(py), delivery))
    })
}

/// Observes the connection, on the I/O thread.
struct Listener {
    /// Emptied on close: the callbacks may refer to the owner of the consumers.
    callbacks: Mutex<Callbacks>,
    /// The tables of calls that fail when no reply can arrive.
    reply_tables: Mutex<Vec<Weak<ReplyTable>>>,
}

#[derive(Default)]
struct Callbacks {
    on_error: Option<Arc<Py<PyAny>>>,
    on_connected: Option<Arc<Py<PyAny>>>,
}

impl Listener {
    fn close(&self) {
        let callbacks = std::mem::take(&mut *lock(&self.callbacks));
        drop(callbacks);
        self.for_each_table(ReplyTable::close);
    }

    fn for_each_table(&self, action: impl Fn(&ReplyTable)) {
        let tables = lock(&self.reply_tables).clone();
        for table in tables.iter().filter_map(Weak::upgrade) {
            action(&table);
        }
    }
}

impl Observer for Listener {
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        self.for_each_table(ReplyTable::connection_lost);
        let failure = Failure::from(error);
        let callback = lock(&self.callbacks).on_error.clone();
        if let Some(callback) = callback {
            callbacks::post(&callback, move |py| {
                let error = failure.into_err(py).into_value(py);
                (error, retry_in.as_secs_f64())
            });
        } else {
            tracing::warn!(
                "cannot consume: {error}; trying again in {:.1} seconds",
                retry_in.as_secs_f64()
            );
        }
    }

    fn connected(&self, reconnect: bool) {
        self.for_each_table(ReplyTable::connection_recovered);
        let callback = lock(&self.callbacks).on_connected.clone();
        if let Some(callback) = callback {
            callbacks::post(&callback, |_| ());
        }
        if reconnect {
            tracing::info!("connected to the broker again, every queue is consumed");
        }
    }

    fn lost(&self, error: &Error) {
        self.for_each_table(ReplyTable::connection_lost);
        tracing::warn!("{error}; connecting again");
    }
}
