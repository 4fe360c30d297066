//! Publishing: pipelined and confirmed, on one connection per process and options.

use std::sync::Arc;
use std::time::Duration;

use nameko::amqp::{self, ConnectOptions, Publish, PublishError, Retry};
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;

use crate::convert;
use crate::error::Failure;
use crate::options::Options;
use crate::pending::Pending;
use crate::promise::{CompletionGuard, Outcome, Promise};
use crate::runtime;
use crate::wait::{deadline, wait};

/// Publishes messages. Connects at the first one.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Publisher {
    /// Looked up at each use, so that it works on after a fork and after `shutdown()`.
    options: ConnectOptions,
}

#[pymethods]
#[expect(
    clippy::too_many_arguments,
    reason = "the arguments of Python functions"
)]
impl Publisher {
    #[new]
    fn new(options: &Bound<'_, Options>) -> Self {
        Publisher {
            options: options.get().connect.clone(),
        }
    }

    /// Publishes and, with `confirm`, waits until the broker has taken charge of the message.
    ///
    /// A lost connection is made again and the message sent again, `max_retries` times (None: for ever).
    #[pyo3(signature = (exchange, routing_key, body, properties, mandatory = false, confirm = true, max_retries = 3,
        interval_start = 1.0, interval_step = 1.0, interval_max = 1.0, timeout = None))]
    fn publish(
        &self,
        py: Python<'_>,
        exchange: String,
        routing_key: String,
        body: PyBackedBytes,
        properties: &Bound<'_, PyDict>,
        mandatory: bool,
        confirm: bool,
        max_retries: Option<u32>,
        interval_start: f64,
        interval_step: f64,
        interval_max: f64,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let deadline = deadline(timeout)?;
        let retry = retry(max_retries, interval_start, interval_step, interval_max)?;
        let message = message(exchange, routing_key, body, properties, mandatory)?;
        match wait(
            py,
            deadline,
            publish(self.inner()?, message, retry, confirm),
        )? {
            Some(published) => published.map_err(|error| Failure::from(error).into_err(py)),
            None => Err(PyTimeoutError::new_err(format!(
                "the broker did not confirm a message within {} seconds",
                timeout.unwrap_or_default()
            ))),
        }
    }

    /// As `publish`, but returns at once.
    #[pyo3(signature = (exchange, routing_key, body, properties, mandatory = false, confirm = true, max_retries = 3,
        interval_start = 1.0, interval_step = 1.0, interval_max = 1.0))]
    fn start_publish(
        &self,
        exchange: String,
        routing_key: String,
        body: PyBackedBytes,
        properties: &Bound<'_, PyDict>,
        mandatory: bool,
        confirm: bool,
        max_retries: Option<u32>,
        interval_start: f64,
        interval_step: f64,
        interval_max: f64,
    ) -> PyResult<Pending> {
        let retry = retry(max_retries, interval_start, interval_step, interval_max)?;
        let message = message(exchange, routing_key, body, properties, mandatory)?;
        let promise = Arc::new(Promise::default());
        let (inner, guard) = (self.inner()?, CompletionGuard::new(promise.clone()));
        runtime::handle()?.spawn(async move {
            guard.complete(match publish(inner, message, retry, confirm).await {
                Ok(()) => Outcome::Published,
                Err(error) => Outcome::Failed(error.into()),
            });
        });
        Ok(Pending::publish(promise))
    }

    /// Sends a request, mandatory, whose reply `pending` waits for, and returns at once: if it cannot be published,
    /// `pending` fails.
    #[pyo3(signature = (pending, exchange, routing_key, body, properties, confirm = true, max_retries = 3,
        interval_start = 1.0, interval_step = 1.0, interval_max = 1.0))]
    fn call(
        &self,
        pending: &Bound<'_, Pending>,
        exchange: String,
        routing_key: String,
        body: PyBackedBytes,
        properties: &Bound<'_, PyDict>,
        confirm: bool,
        max_retries: Option<u32>,
        interval_start: f64,
        interval_step: f64,
        interval_max: f64,
    ) -> PyResult<()> {
        let retry = retry(max_retries, interval_start, interval_step, interval_max)?;
        let message = message(exchange, routing_key, body, properties, true)?;
        let (inner, guard) = (
            self.inner()?,
            CompletionGuard::new(pending.get().promise.clone()),
        );
        runtime::handle()?.spawn(async move {
            match publish(inner, message, retry, confirm).await {
                // The reply fulfils it.
                Ok(()) => guard.disarm(),
                Err(error) => guard.complete(Outcome::Failed(error.into())),
            }
        });
        Ok(())
    }

    /// Declares exchanges and queues, the queues with their bindings.
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
}

async fn publish(
    publisher: amqp::Publisher,
    message: Publish,
    retry: Option<Retry>,
    confirm: bool,
) -> Result<(), PublishError> {
    if confirm {
        publisher.publish(message, retry).await
    } else {
        publisher.publish_unconfirmed(message, retry).await
    }
}

fn message(
    exchange: String,
    routing_key: String,
    body: PyBackedBytes,
    properties: &Bound<'_, PyDict>,
    mandatory: bool,
) -> PyResult<Publish> {
    let (properties, body) = (convert::properties(properties)?, convert::body(body));
    Ok(Publish {
        exchange,
        routing_key,
        mandatory,
        properties,
        body,
    })
}

fn retry(max_retries: Option<u32>, start: f64, step: f64, max: f64) -> PyResult<Option<Retry>> {
    let seconds = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| PyValueError::new_err(format!("retry interval {seconds}: {error}")))
    };
    Ok(Some(Retry {
        max_retries,
        interval_start: seconds(start)?,
        interval_step: seconds(step)?,
        interval_max: seconds(max)?,
    }))
}
