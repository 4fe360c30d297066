//! A message that came, as Python sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nameko::amqp::{
    self, Acker, Error, Properties, Publish, PublishError, Publisher, Retry, Table,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::timeout;

use crate::convert;
use crate::error::Failure;
use crate::jobs;
use crate::options::{Options, PublisherHandle};
use crate::wait;

/// A message that came. What Python does not look at is not converted.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Delivery {
    message: Box<amqp::Delivery>,
    body: PyOnceLock<Py<PyBytes>>,
    headers: PyOnceLock<Py<PyDict>>,
    properties: PyOnceLock<Py<PyDict>>,
    /// It was acknowledged or rejected.
    settled: Arc<AtomicBool>,
}

impl Delivery {
    pub(crate) fn new(message: Box<amqp::Delivery>) -> Self {
        Delivery {
            message,
            body: PyOnceLock::new(),
            headers: PyOnceLock::new(),
            properties: PyOnceLock::new(),
            settled: Arc::default(),
        }
    }

    /// A delivery that was acknowledged already.
    pub(crate) fn settled(message: Box<amqp::Delivery>) -> Self {
        let delivery = Delivery::new(message);
        delivery.settled.store(true, Ordering::Release);
        delivery
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

    /// The body, where it is JSON as Nameko writes it and nothing else has a say in how it is read: `application/json` in
    /// UTF-8, not compressed, without kombu's `__type__`.
    #[getter]
    fn json_text(&self) -> Option<&str> {
        let properties = &self.message.properties;
        let plain = properties.content_type.as_deref() == Some("application/json")
            && properties.content_encoding.as_deref() == Some("utf-8")
            && properties.headers.get("compression").is_none();
        let text = plain.then(|| std::str::from_utf8(&self.message.body).ok());
        text.flatten().filter(|text| !text.contains("__type__"))
    }

    /// A new dict of the headers, with `prefix` taken from the names that have it.
    fn headers_without_prefix<'py>(
        &self,
        py: Python<'py>,
        prefix: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        convert::table_dict_without(py, &self.message.properties.headers, prefix)
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = self.headers.get_or_try_init(py, || {
            convert::table_dict(py, &self.message.properties.headers).map(Bound::unbind)
        })?;
        Ok(headers.bind(py).clone())
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

    /// It was acknowledged or rejected.
    #[getter]
    fn acknowledged(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// The message is done with. Nothing happens the second time, or when its connection is gone.
    fn ack(&self) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.message.acker.ack();
        }
    }

    /// The message is not wanted: back to its queue with `requeue`, else dropped.
    #[pyo3(signature = (requeue = false))]
    fn reject(&self, requeue: bool) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.message.acker.reject(requeue);
        }
    }

    /// The RPC reply: published to `reply_to` with the correlation id copied; once it is confirmed the request is acknowledged.
    ///
    /// With `wait=False` it returns at once and that goes on in the background; a failure is logged then. With `batch` too
    /// it is sent when the job of this thread is over, with the replies of the jobs behind it. A reply that could not be delivered because the broker was away leaves the request to be delivered again.
    #[pyo3(signature = (options, exchange, body, content_type, content_encoding, ack = true, wait = true, batch = false))]
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of a Python function"
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
        let request = &self.message.properties;
        let Some(reply_to) = request.reply_to.as_deref() else {
            return Err(PyValueError::new_err(
                "the request has no reply_to: nobody waits for a reply",
            ));
        };
        let message = Publish {
            exchange,
            routing_key: reply_to.to_owned(),
            mandatory: false,
            properties: Properties {
                content_type: Some(convert::text(content_type)),
                content_encoding: Some(convert::text(content_encoding)),
                headers: Table::new(),
                // As every message of Nameko: kept on disk, lowest priority.
                delivery_mode: Some(2),
                priority: Some(0),
                correlation_id: request.correlation_id.clone(),
                ..Properties::default()
            },
            body: convert::body(body),
        };
        let PublisherHandle {
            publisher,
            runtime,
            sending,
        } = options.get().publisher()?;
        if wait {
            let publish = async move { publisher.publish(message, Some(Retry::default())).await };
            match wait::wait(py, None, publish)? {
                Some(Err(error)) => return Err(Failure::from(error).into_err(py)),
                _ if ack => self.ack(),
                _ => {}
            }
        } else {
            let settles = ack && !self.settled.swap(true, Ordering::AcqRel);
            let acker = settles.then(|| self.message.acker.clone());
            let reply = Reply {
                request: self.message.routing_key.clone(),
                acker,
                publisher: publisher.clone(),
                runtime,
                sending: sending.try_read_owned().ok(),
            };
            match publisher
                .try_publish(message, |message, published| reply.sent(message, published))
            {
                Ok(unsent) if batch => jobs::flush_after_job(unsent),
                Ok(unsent) => unsent.flush(),
                Err(back) => {
                    let (message, then) = *back;
                    then(message, Err(PublishError::Lost(Error::Stopped)));
                }
            }
        }
        Ok(())
    }
}

/// Resolves when the replies that are being sent in the background have been sent and their requests acknowledged, or
/// after `patience`.
pub(crate) async fn replies_sent(sending: Arc<RwLock<()>>, patience: Duration) {
    // Too late is no failure: the requests are delivered again.
    let _ = timeout(patience, sending.write()).await;
}

/// A reply that is sent in the background.
struct Reply {
    /// The routing key of the request.
    request: String,
    /// Acknowledges the request, unless that is not for us.
    acker: Option<Acker>,
    publisher: Publisher,
    runtime: Handle,
    /// Dropped once the request is acknowledged. None where somebody waits for the replies before this one.
    sending: Option<OwnedRwLockReadGuard<()>>,
}

impl Reply {
    /// The broker has said what became of it, or nothing was sent.
    fn sent(self, message: Publish, published: Result<(), PublishError>) {
        match published {
            Err(PublishError::Lost(_) | PublishError::Refused(_)) => {
                self.publish_with_retries(message)
            }
            settled => settle(self.acker, &self.request, settled),
        }
    }

    /// Sends it, again, with all that the publisher does for a message.
    fn publish_with_retries(self, message: Publish) {
        let Reply {
            request,
            acker,
            publisher,
            runtime,
            sending,
        } = self;
        runtime.spawn(async move {
            let published = publisher.publish(message, Some(Retry::default())).await;
            settle(acker, &request, published);
            // Named, as the task owns only what it names.
            drop(sending);
        });
    }
}

/// What becomes of a request after its reply was published in the background.
fn settle(acker: Option<Acker>, routing_key: &str, published: Result<(), PublishError>) {
    match published {
        Ok(()) => acker.inspect(Acker::ack),
        Err(PublishError::Lost(error)) if acker.is_some() => {
            tracing::error!(
                "the reply to `{routing_key}` could not be sent, the request goes back to its queue: {error}"
            );
            acker.inspect(|acker| acker.reject(true))
        }
        Err(error) => {
            tracing::error!(
                "the reply to `{routing_key}` could not be sent, its caller will not get one: {error}"
            );
            acker.inspect(Acker::ack)
        }
    };
}
