//! Publishing: pipelined and confirmed, on one connection per process and options.

use std::sync::Arc;
use std::time::Duration;

use nameko::amqp::{self, ConnectOptions, Publish, PublishError, PublishOptions};
use nameko::internal::publish_time_limit;
use pyo3::exceptions::PyValueError;
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
use crate::wait::wait;

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

    /// Publishes and, with `confirm`, waits for the broker's confirm. `timeout` in seconds limits
    /// the time with all retries; infinity for no limit.
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
        let outgoing = self.outgoing(message, mandatory, retry, confirm, timeout)?;
        match wait(py, None, outgoing.publish())? {
            Some(Err(error)) => Err(Failure::from(error).into_err(py)),
            _ => Ok(()),
        }
    }

    /// Publishes without waiting.
    #[pyo3(signature = (message, retry = None, mandatory = false, confirm = true, timeout = None))]
    fn start_publish(
        &self,
        message: Message<'_>,
        retry: Option<&Bound<'_, Retry>>,
        mandatory: bool,
        confirm: bool,
        timeout: Option<f64>,
    ) -> PyResult<Pending> {
        let outgoing = self.outgoing(message, mandatory, retry, confirm, timeout)?;
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
    #[pyo3(signature = (pending, message, retry = None, confirm = true, timeout = None))]
    fn call(
        &self,
        pending: &Bound<'_, Pending>,
        message: Message<'_>,
        retry: Option<&Bound<'_, Retry>>,
        confirm: bool,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let outgoing = self.outgoing(message, true, retry, confirm, timeout)?;
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

    /// Closes the connection, unless a message waits for its confirm. The next message reopens it.
    fn close_if_idle(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        // Spawned, so that it outlives the wait.
        let closed = runtime::handle()?.spawn(async move { inner.close_if_idle().await });
        wait(py, None, closed).map(drop)
    }

    /// Declares exchanges, and queues with their bindings.
    fn declare(
        &self,
        py: Python<'_>,
        exchanges: Vec<Bound<'_, PyDict>>,
        queues: Vec<Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let (exchanges, queues) = entities(exchanges, queues)?;
        let inner = self.inner()?;
        match wait(py, None, inner.declare(&exchanges, &queues))? {
            Some(Err(error)) => Err(Failure::from(error).into_err(py)),
            _ => Ok(()),
        }
    }

    /// Declares in the background once the broker can be reached and accepts the login.
    /// `Pending.cancel()` ends that.
    fn start_declare(
        &self,
        exchanges: Vec<Bound<'_, PyDict>>,
        queues: Vec<Bound<'_, PyDict>>,
    ) -> PyResult<Pending> {
        let (exchanges, queues) = entities(exchanges, queues)?;
        let declarations = amqp::Declarations::new(exchanges, queues);
        let inner = self.inner()?;
        let promise = Arc::new(Promise::default());
        let guard = CompletionGuard::new(promise.clone());
        let cancelled = promise.clone();
        runtime::handle()?.spawn(async move {
            let outcome = tokio::select! {
                declared = inner.ensure_declared(&declarations) => match declared {
                    Ok(()) => Outcome::Published,
                    Err(error) => Outcome::Failed(error.into()),
                },
                outcome = cancelled.outcome() => outcome,
            };
            guard.complete(outcome);
        });
        Ok(Pending::publish(promise))
    }
}

fn entities(
    exchanges: Vec<Bound<'_, PyDict>>,
    queues: Vec<Bound<'_, PyDict>>,
) -> PyResult<(Vec<amqp::Exchange>, Vec<amqp::Queue>)> {
    Ok((
        exchanges
            .iter()
            .map(convert::exchange)
            .collect::<PyResult<_>>()?,
        queues.iter().map(convert::queue).collect::<PyResult<_>>()?,
    ))
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
        timeout: Option<f64>,
    ) -> PyResult<Outgoing> {
        let retry = retry.map_or_else(amqp::Retry::default, |retry| retry.get().0);
        Ok(Outgoing {
            publisher: self.inner()?,
            message: message.into_publish(mandatory)?,
            retry,
            confirm,
            timeout: time_limit(timeout, &retry)?,
        })
    }
}

/// A converted message, ready to be published.
struct Outgoing {
    publisher: amqp::Publisher,
    message: Publish,
    retry: amqp::Retry,
    confirm: bool,
    timeout: Option<Duration>,
}

impl Outgoing {
    async fn publish(self) -> Result<(), PublishError> {
        let options = PublishOptions {
            retry: Some(self.retry),
            confirm: self.confirm,
            timeout: self.timeout,
            declarations: &[],
        };
        self.publisher.publish_with(&self.message, options).await
    }
}

/// Returns the time limit of a publish, the default one without a `timeout` in seconds.
fn time_limit(timeout: Option<f64>, retry: &amqp::Retry) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(publish_time_limit(Some(retry))),
        Some(seconds) if seconds >= 0.0 => Ok(Duration::try_from_secs_f64(seconds).ok()),
        Some(seconds) => Err(PyValueError::new_err(format!(
            "a timeout must not be negative, but is {seconds}"
        ))),
    }
}
