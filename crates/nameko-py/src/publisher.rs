//! Publishing: pipelined and confirmed, on one connection per process and options.

use std::sync::Arc;

use nameko::amqp::{self, ConnectOptions, Publish, PublishError};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;

use crate::convert;
use crate::error::Failure;
use crate::options::Options;
use crate::pending::Pending;
use crate::promise::{CompletionGuard, Outcome, Promise};
use crate::retry::Retry;
use crate::runtime;
use crate::wait::{deadline, wait};

/// A publisher. Connects for the first message.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Publisher {
    /// Resolved at each use, so that it works after a fork and after `shutdown()`.
    options: ConnectOptions,
}

/// A message: exchange, routing key, body and properties, as a tuple.
#[derive(FromPyObject)]
struct Message<'py>(String, String, PyBackedBytes, Bound<'py, PyDict>);

impl Message<'_> {
    fn into_publish(self, mandatory: bool) -> PyResult<Publish> {
        let Message(exchange, routing_key, body, properties) = self;
        Ok(Publish {
            exchange,
            routing_key,
            mandatory,
            properties: convert::properties(&properties)?,
            body: convert::body(body),
        })
    }
}

#[pymethods]
impl Publisher {
    #[new]
    fn new(options: &Bound<'_, Options>) -> Self {
        Publisher {
            options: options.get().connect.clone(),
        }
    }

    /// Publishes and, with `confirm`, waits for the broker's confirm.
    #[pyo3(signature = (message, retry = None, mandatory = false, confirm = true, timeout = None))]
    fn publish(
        &self,
        py: Python<'_>,
        message: Message<'_>,
        retry: Option<&Bound<'_, Retry>>,
        mandatory: bool,
        confirm: bool,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let deadline = deadline(timeout)?;
        let outgoing = self.outgoing(message, mandatory, retry, confirm)?;
        match wait(py, deadline, outgoing.publish())? {
            Some(published) => published.map_err(|error| Failure::from(error).into_err(py)),
            None => Err(PyTimeoutError::new_err(format!(
                "the broker did not confirm a message within {} seconds",
                timeout.unwrap_or_default()
            ))),
        }
    }

    /// Publishes without waiting.
    #[pyo3(signature = (message, retry = None, mandatory = false, confirm = true))]
    fn start_publish(
        &self,
        message: Message<'_>,
        retry: Option<&Bound<'_, Retry>>,
        mandatory: bool,
        confirm: bool,
    ) -> PyResult<Pending> {
        let outgoing = self.outgoing(message, mandatory, retry, confirm)?;
        let promise = Arc::new(Promise::default());
        let guard = CompletionGuard::new(promise.clone());
        runtime::handle()?.spawn(async move {
            guard.complete(match outgoing.publish().await {
                Ok(()) => Outcome::Published,
                Err(error) => Outcome::Failed(error.into()),
            });
        });
        Ok(Pending::publish(promise))
    }

    /// Publishes a request, mandatory, without waiting. `pending` fails if that fails.
    #[pyo3(signature = (pending, message, retry = None, confirm = true))]
    fn call(
        &self,
        pending: &Bound<'_, Pending>,
        message: Message<'_>,
        retry: Option<&Bound<'_, Retry>>,
        confirm: bool,
    ) -> PyResult<()> {
        let outgoing = self.outgoing(message, true, retry, confirm)?;
        let guard = CompletionGuard::new(pending.get().promise.clone());
        runtime::handle()?.spawn(async move {
            match outgoing.publish().await {
                // The reply completes the call.
                Ok(()) => guard.disarm(),
                Err(error) => guard.complete(Outcome::Failed(error.into())),
            }
        });
        Ok(())
    }

    /// Declares exchanges, and queues with their bindings.
    fn declare(
        &self,
        py: Python<'_>,
        exchanges: Vec<Bound<'_, PyDict>>,
        queues: Vec<Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let exchanges = exchanges
            .iter()
            .map(convert::exchange)
            .collect::<PyResult<Vec<_>>>()?;
        let queues = queues
            .iter()
            .map(convert::queue)
            .collect::<PyResult<Vec<_>>>()?;
        let inner = self.inner()?;
        match wait(py, None, inner.declare(&exchanges, &queues))? {
            Some(Err(error)) => Err(Failure::from(error).into_err(py)),
            _ => Ok(()),
        }
    }
}

impl Publisher {
    fn inner(&self) -> PyResult<amqp::Publisher> {
        runtime::publisher(&self.options)
    }

    fn outgoing(
        &self,
        message: Message<'_>,
        mandatory: bool,
        retry: Option<&Bound<'_, Retry>>,
        confirm: bool,
    ) -> PyResult<Outgoing> {
        Ok(Outgoing {
            publisher: self.inner()?,
            message: message.into_publish(mandatory)?,
            retry: retry.map_or_else(amqp::Retry::default, |retry| retry.get().0),
            confirm,
        })
    }
}

/// A converted message, ready to be published.
struct Outgoing {
    publisher: amqp::Publisher,
    message: Publish,
    retry: amqp::Retry,
    confirm: bool,
}

impl Outgoing {
    async fn publish(self) -> Result<(), PublishError> {
        let Outgoing {
            publisher,
            message,
            retry,
            confirm,
        } = self;
        if confirm {
            publisher.publish(message, Some(retry)).await
        } else {
            publisher.publish_unconfirmed(message, Some(retry)).await
        }
    }
}
