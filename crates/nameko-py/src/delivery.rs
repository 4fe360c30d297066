//! A received message.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nameko::amqp::{self, Acker, Error, Properties, Publish, PublishError, Publisher, Table};
use nameko::internal::{RequeuePause, Settlement, default_properties, publish_reply};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::timeout;

use crate::context_data;
use crate::convert;
use crate::death_history;
use crate::error::Failure;
use crate::jobs;
use crate::options::{Options, PublisherHandle};
use crate::reply_batch::Held;
use crate::runtime;
use crate::wait;

/// A received message. Its parts are converted to Python objects on first access.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Delivery {
    message: amqp::Delivery,
    body: PyOnceLock<Py<PyBytes>>,
    headers: PyOnceLock<Py<PyDict>>,
    properties: PyOnceLock<Py<PyDict>>,
    /// Whether the message was acknowledged or rejected.
    settled: AtomicBool,
    /// Of the consumers that received the message.
    sending: Option<Sending>,
}

/// Held for reading by each reply that is sent in the background.
pub(crate) type Sending = Arc<RwLock<()>>;

impl Delivery {
    pub(crate) fn new(message: amqp::Delivery, sending: Option<Sending>) -> Self {
        Delivery {
            message,
            body: PyOnceLock::new(),
            headers: PyOnceLock::new(),
            properties: PyOnceLock::new(),
            settled: AtomicBool::new(false),
            sending,
        }
    }

    /// A delivery that is already acknowledged.
    pub(crate) fn settled(message: amqp::Delivery) -> Self {
        let delivery = Delivery::new(message, None);
        delivery.settled.store(true, Ordering::Release);
        delivery
    }

    /// The headers, with the whole history of dead letters.
    fn received_headers(&self) -> Cow<'_, Table> {
        let headers = &self.message.properties.headers;
        death_history::restore(headers).map_or(Cow::Borrowed(headers), Cow::Owned)
    }

    /// Takes the right to settle the message. Returns false if it is settled already.
    fn begin_settlement(&self) -> bool {
        !self.settled.swap(true, Ordering::AcqRel)
    }

    /// The reply to this request, with its correlation id.
    fn reply(
        &self,
        exchange: String,
        body: PyBackedBytes,
        content_type: &str,
        content_encoding: &str,
    ) -> PyResult<Publish> {
        let request = &self.message.properties;
        let Some(reply_to) = request.reply_to.as_deref() else {
            return Err(PyValueError::new_err(
                "the request has no reply_to: a reply cannot be sent",
            ));
        };
        Ok(Publish {
            exchange,
            routing_key: reply_to.to_owned(),
            mandatory: false,
            properties: Properties {
                content_type: Some(convert::text(content_type)),
                content_encoding: Some(convert::text(content_encoding)),
                correlation_id: request.correlation_id.clone(),
                ..default_properties()
            },
            body: convert::body(body),
        })
    }

    /// Publishes a reply, waits for the broker's confirm, then settles the request.
    fn respond_and_wait(
        &self,
        py: Python<'_>,
        handle: PublisherHandle,
        reply: Publish,
        ack: bool,
    ) -> PyResult<()> {
        let PublisherHandle {
            publisher, runtime, ..
        } = handle;
        let request = &self.message;
        let acker = ack.then_some(&request.acker);
        let publish = publish_reply(&publisher, &request.routing_key, &reply, acker);
        let Some(published) = wait::wait(py, None, publish)? else {
            return Ok(());
        };
        let settlement = Settlement::of(&published);
        match (&published, settlement) {
            (Ok(()), _) if ack => self.ack(),
            (Err(_), Settlement::Requeue) if ack && self.begin_settlement() => {
                let acker = self.message.acker.clone();
                runtime.spawn(async move { settlement.apply(&acker).await });
            }
            _ => {}
        }
        published.map_err(|error| Failure::from(error).into_err(py))
    }

    /// Publishes a reply and settles the request in the background. With `batch` the reply is
    /// flushed after the job of this thread.
    fn respond_in_background(
        &self,
        handle: PublisherHandle,
        reply: Publish,
        ack: bool,
        batch: bool,
    ) {
        let PublisherHandle { publisher, runtime } = handle;
        let settles = ack && self.begin_settlement();
        let pending = PendingReply {
            request: self.message.routing_key.clone(),
            acker: settles.then(|| self.message.acker.clone()),
            publisher: publisher.clone(),
            runtime,
            sending: self
                .sending
                .as_ref()
                .and_then(|sending| sending.clone().try_read_owned().ok()),
        };
        match publisher.try_publish(reply, |reply, published| {
            pending.published(reply, published)
        }) {
            Ok(unsent) if batch => jobs::flush_after_job(Held::Published(unsent)),
            Ok(unsent) => unsent.flush(),
            Err(returned) => {
                let (reply, then) = *returned;
                then(reply, Err(PublishError::Lost(Error::Stopped)));
            }
        }
    }
}

#[pymethods]
impl Delivery {
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let body = self
            .body
            .get_or_init(py, || PyBytes::new(py, &self.message.body).unbind());
        body.bind(py).clone()
    }

    /// The body, if it is plain JSON: `application/json` in UTF-8, not compressed, and without
    /// kombu's `__type__`. None otherwise.
    #[getter]
    fn json_text(&self) -> Option<&str> {
        let properties = &self.message.properties;
        let plain = properties.content_type.as_deref() == Some("application/json")
            && properties.content_encoding.as_deref() == Some("utf-8")
            && properties.headers.get("compression").is_none();
        let text = plain.then(|| std::str::from_utf8(&self.message.body).ok());
        text.flatten().filter(|text| !text.contains("__type__"))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = self.headers.get_or_try_init(py, || {
            convert::table_dict(py, &self.received_headers()).map(Bound::unbind)
        })?;
        Ok(headers.bind(py).clone())
    }

    /// Returns the context data in the headers, as a new dict, see `decode_from_headers`.
    fn context_data<'py>(&self, py: Python<'py>, prefix: &str) -> PyResult<Bound<'py, PyDict>> {
        match self.headers.get(py) {
            Some(headers) => {
                context_data::decode_from_headers(headers.bind(py).as_mapping(), prefix)
            }
            None => context_data::from_table(py, &self.received_headers(), prefix),
        }
    }

    #[getter]
    fn properties<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = self.headers(py)?;
        let properties = self.properties.get_or_try_init(py, || {
            convert::properties_dict(py, &self.message.properties, &headers).map(Bound::unbind)
        })?;
        Ok(properties.bind(py).clone())
    }

    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.message.properties.content_type.as_deref()
    }

    #[getter]
    fn content_encoding(&self) -> Option<&str> {
        self.message.properties.content_encoding.as_deref()
    }

    #[getter]
    fn correlation_id(&self) -> Option<&str> {
        self.message.properties.correlation_id.as_deref()
    }

    #[getter]
    fn reply_to(&self) -> Option<&str> {
        self.message.properties.reply_to.as_deref()
    }

    #[getter]
    fn exchange(&self) -> &str {
        &self.message.exchange
    }

    #[getter]
    fn routing_key(&self) -> &str {
        &self.message.routing_key
    }

    #[getter]
    fn redelivered(&self) -> bool {
        self.message.redelivered
    }

    #[getter]
    fn consumer_tag(&self) -> &str {
        &self.message.consumer_tag
    }

    #[getter]
    fn delivery_tag(&self) -> u64 {
        self.message.delivery_tag
    }

    /// Whether the message was acknowledged or rejected, or is to be settled by `respond()`.
    #[getter]
    fn acknowledged(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Acknowledges the message. Does nothing if it is settled or its connection is gone.
    fn ack(&self) {
        if self.begin_settlement() {
            self.message.acker.ack();
        }
    }

    /// Rejects the message: requeues it with `requeue`, else discards it. Does nothing if it is
    /// settled or its connection is gone.
    #[pyo3(signature = (requeue = false))]
    fn reject(&self, requeue: bool) {
        if self.begin_settlement() {
            self.message.acker.reject(requeue);
        }
    }

    /// Requeues the message after a pause that grows with each failure of it, and logs a line.
    /// `queue` is the name of its queue. Does nothing if it is settled.
    fn requeue_after_pause(&self, queue: String) -> PyResult<()> {
        if self.begin_settlement() {
            let pause = RequeuePause::of(&queue, &self.message);
            let acker = self.message.acker.clone();
            runtime::handle()?.spawn(async move { pause.requeue(&queue, acker).await });
        }
        Ok(())
    }

    /// Publishes the reply to an RPC request, then acknowledges the request.
    #[pyo3(signature = (options, exchange, body, content_type, content_encoding, ack = true, wait = true, batch = false))]
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of a Python function, by position on the fast path"
    )]
    fn respond(
        &self,
        py: Python<'_>,
        options: &Bound<'_, Options>,
        exchange: String,
        body: PyBackedBytes,
        content_type: &str,
        content_encoding: &str,
        ack: bool,
        wait: bool,
        batch: bool,
    ) -> PyResult<()> {
        let reply = self.reply(exchange, body, content_type, content_encoding)?;
        let handle = options.get().publisher()?;
        if wait {
            self.respond_and_wait(py, handle, reply, ack)
        } else {
            self.respond_in_background(handle, reply, ack, batch);
            Ok(())
        }
    }
}

/// Resolves once all background replies are sent and their requests settled, or after `limit`.
pub(crate) async fn replies_sent(sending: &Sending, limit: Duration) {
    // Past the limit, the broker delivers the requests again.
    let _ = timeout(limit, sending.write()).await;
}

/// A reply that is published in the background.
struct PendingReply {
    /// The routing key of the request.
    request: String,
    /// Settles the request; none if that is left to the caller.
    acker: Option<Acker>,
    publisher: Publisher,
    runtime: Handle,
    /// Dropped once the request is settled. None if a stop of the consumers already waits for
    /// earlier replies.
    sending: Option<OwnedRwLockReadGuard<()>>,
}

impl PendingReply {
    /// Handles the result of the first attempt, on the I/O thread.
    fn published(self, reply: Publish, published: Result<(), PublishError>) {
        match published {
            Ok(()) => {
                self.acker.inspect(Acker::ack);
            }
            Err(PublishError::Lost(_) | PublishError::Refused(_)) => self.publish_again(reply),
            Err(error) => {
                let runtime = self.runtime.clone();
                runtime.spawn(self.settle(Err(error)));
            }
        }
    }

    /// Publishes the reply, and keeps it while the broker is away.
    fn publish_again(self, reply: Publish) {
        let (runtime, publisher) = (self.runtime.clone(), self.publisher.clone());
        runtime.spawn(async move {
            let acker = self.acker.as_ref();
            let published = publish_reply(&publisher, &self.request, &reply, acker).await;
            self.settle(published).await;
        });
    }

    async fn settle(self, published: Result<(), PublishError>) {
        let settlement = Settlement::of(&published);
        if let Err(error) = published {
            let consequence = match settlement {
                Settlement::Requeue if self.acker.is_some() => "the request goes back to its queue",
                _ => "its caller will not receive one",
            };
            tracing::error!(
                "the reply to `{}` could not be sent, {consequence}: {error}",
                self.request
            );
        }
        if settlement == Settlement::Requeue {
            // The end of the connection requeues the request too: a stop need not wait.
            drop(self.sending);
        }
        if let Some(acker) = &self.acker {
            settlement.apply(acker).await;
        }
    }
}
