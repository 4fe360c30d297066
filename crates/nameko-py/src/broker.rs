//! The embedded broker, for trying out and for tests.

use std::error::Error;
use std::sync::Arc;

use nameko_broker::{BrokerError, BrokerStats};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::Mutex;

use crate::runtime;
use crate::wait::wait;

/// An AMQP 0-9-1 broker in this process, in memory. User and password are guest; port 0 takes a free one.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Broker {
    /// None after `stop()`.
    inner: Arc<Mutex<Option<nameko_broker::Broker>>>,
    uri: String,
    port: u16,
    management_uri: Option<String>,
    management_port: Option<u16>,
}

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (host = "127.0.0.1", port = 0, management_port = None))]
    fn new(py: Python<'_>, host: &str, port: u16, management_port: Option<u16>) -> PyResult<Self> {
        let address = (host.to_owned(), port);
        let mut builder = nameko_broker::Broker::builder();
        if let Some(port) = management_port {
            builder = builder.management_port(port);
        }
        let start = runtime::handle()?.spawn(builder.start(address));
        let broker = match wait(py, None, start)? {
            Some(Ok(started)) => started.map_err(|error| not_started(&error, host, port))?,
            _ => {
                return Err(PyRuntimeError::new_err(
                    "the I/O thread ended while the broker started",
                ));
            }
        };
        Ok(Broker {
            uri: broker.uri(),
            port: broker.addr().port(),
            management_uri: broker.management_uri(),
            management_port: broker.management_addr().map(|addr| addr.port()),
            inner: Arc::new(Mutex::new(Some(broker))),
        })
    }

    /// Where clients connect, with user and password.
    #[getter]
    fn uri(&self) -> &str {
        &self.uri
    }

    /// The TCP port it listens on.
    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    /// Where its management API is, with user and password; None without one.
    #[getter]
    fn management_uri(&self) -> Option<&str> {
        self.management_uri.as_deref()
    }

    /// The TCP port of its management API; None without one.
    #[getter]
    fn management_port(&self) -> Option<u16> {
        self.management_port
    }

    /// Adds a virtual host; False when there is one of that name.
    fn add_vhost(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        self.with_broker(py, move |broker| broker.add_vhost(&name))
    }

    /// Deletes a virtual host with all that is in it, and closes its connections; False when there is none of that name.
    fn delete_vhost(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        self.with_broker(py, move |broker| broker.delete_vhost(&name))
    }

    /// What is there now: `{'connections': int, 'channels': int, 'queues': {name: {'messages', 'unacked', 'consumers'}}}`. The
    /// queues are those of one virtual host.
    #[pyo3(signature = (vhost = "/"))]
    fn stats<'py>(&self, py: Python<'py>, vhost: &str) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.inner.clone();
        let stats = wait(py, None, async move {
            inner
                .lock()
                .await
                .as_ref()
                .map(nameko_broker::Broker::stats)
        })?;
        stats_dict(py, &stats.flatten().unwrap_or_default(), vhost)
    }

    /// Closes all client connections, as a broker that restarts does. Clients may connect again.
    fn close_connections(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.clone();
        let closed = runtime::handle()?.spawn(async move {
            if let Some(broker) = inner.lock().await.as_ref() {
                broker.close_connections().await;
            }
        });
        wait(py, None, closed).map(drop)
    }

    /// Stops it; its messages are gone. Does nothing the second time.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.clone();
        let stopped = runtime::handle()?.spawn(async move {
            let broker = inner.lock().await.take();
            if let Some(broker) = broker {
                broker.stop().await;
            }
        });
        wait(py, None, stopped).map(drop)
    }
}

impl Broker {
    /// Asks the running broker.
    fn with_broker<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&nameko_broker::Broker) -> T + Send + 'static,
    ) -> PyResult<T> {
        let inner = self.inner.clone();
        let asked = wait(
            py,
            None,
            async move { inner.lock().await.as_ref().map(ask) },
        )?;
        asked
            .flatten()
            .ok_or_else(|| PyRuntimeError::new_err("the broker was stopped"))
    }
}

fn not_started(error: &BrokerError, host: &str, port: u16) -> PyErr {
    let reason = error
        .source()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let port = match error {
        BrokerError::ListenManagement { port, .. } => *port,
        _ => port,
    };
    PyOSError::new_err(format!("{host}:{port}: {error}{reason}"))
}

fn stats_dict<'py>(
    py: Python<'py>,
    stats: &BrokerStats,
    vhost: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let queues = PyDict::new(py);
    let queues_there = stats.queues.iter().filter(|((of, _), _)| of == vhost);
    for ((_, name), counts) in queues_there {
        let queue = PyDict::new(py);
        queue.set_item("messages", counts.messages)?;
        queue.set_item("unacked", counts.unacked)?;
        queue.set_item("consumers", counts.consumers)?;
        queues.set_item(name, queue)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("connections", stats.connections)?;
    dict.set_item("channels", stats.channels)?;
    dict.set_item("queues", queues)?;
    Ok(dict)
}
