//! The embedded broker, for development and tests.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use nameko_broker::{BrokerError, BrokerStats, Tls};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::Mutex;

use crate::runtime;
use crate::wait::wait;

/// An in-memory AMQP 0-9-1 broker in this process. User and password are guest; port 0 takes a free
/// one.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Broker {
    /// None after `stop()`.
    inner: Arc<Mutex<Option<nameko_broker::Broker>>>,
    uri: String,
    port: u16,
    management_uri: Option<String>,
    management_port: Option<u16>,
    tls_uri: Option<String>,
}

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (host = "127.0.0.1", port = 0, management_port = None, max_message_size = None, *, tls_port = None,
        certfile = None, keyfile = None, cacertfile = None, fail_if_no_peer_cert = false))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        host: &str,
        port: u16,
        management_port: Option<u16>,
        max_message_size: Option<u64>,
        tls_port: Option<u16>,
        certfile: Option<PathBuf>,
        keyfile: Option<PathBuf>,
        cacertfile: Option<PathBuf>,
        fail_if_no_peer_cert: bool,
    ) -> PyResult<Self> {
        let name = host.to_owned();
        let mut builder = nameko_broker::Broker::builder();
        if let Some(port) = management_port {
            builder = builder.management_port(port);
        }
        if let Some(bytes) = max_message_size {
            builder = builder.max_message_size(bytes);
        }
        if let Some(port) = tls_port {
            let certfile =
                certfile.ok_or_else(|| PyValueError::new_err("tls_port needs a certfile"))?;
            let tls = Tls::new(&certfile, keyfile.as_ref().unwrap_or(&certfile)).port(port);
            builder = builder.tls(match cacertfile {
                None => tls,
                Some(file) if fail_if_no_peer_cert => tls.require_client_certificates(file),
                Some(file) => tls.request_client_certificates(file),
            });
        }
        let start = runtime::handle()?.spawn(async move {
            let listen = |source| BrokerError::Listen { source };
            let addresses = nameko_broker::resolve(&name, port).await.map_err(listen)?;
            builder.start(&addresses[..]).await
        });
        let broker = match wait(py, None, start)? {
            Some(Ok(started)) => started.map_err(|error| start_error(&error, host, port))?,
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
            tls_uri: broker.tls_uri(),
            inner: Arc::new(Mutex::new(Some(broker))),
        })
    }

    /// The URI for clients, with user and password.
    #[getter]
    fn uri(&self) -> &str {
        &self.uri
    }

    /// The TCP port of the listener.
    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    /// The URI of the management API, with user and password; None if it is disabled.
    #[getter]
    fn management_uri(&self) -> Option<&str> {
        self.management_uri.as_deref()
    }

    /// The TCP port of the management API; None if it is disabled.
    #[getter]
    fn management_port(&self) -> Option<u16> {
        self.management_port
    }

    /// The URI for clients over TLS, with user and password; None without TLS.
    #[getter]
    fn tls_uri(&self) -> Option<&str> {
        self.tls_uri.as_deref()
    }

    /// Adds a virtual host. Returns False if it exists.
    fn add_vhost(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        self.with_broker(py, move |broker| broker.add_vhost(&name))
    }

    /// Deletes a virtual host with its contents, and closes its connections. Returns False if it
    /// does not exist.
    fn delete_vhost(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        self.with_broker(py, move |broker| broker.delete_vhost(&name))
    }

    /// Returns counts: `{'connections': int, 'channels': int, 'queues': {name: {'messages',
    /// 'unacked', 'consumers'}}}`. The queues are those of one virtual host.
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

    /// Closes all client connections, as a restart would. Clients may reconnect.
    fn close_connections(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.clone();
        let closed = runtime::handle()?.spawn(async move {
            if let Some(broker) = inner.lock().await.as_ref() {
                broker.close_connections().await;
            }
        });
        wait(py, None, closed).map(drop)
    }

    /// Stops the broker and discards its messages. Does nothing the second time.
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
    /// Calls `action` with the running broker.
    ///
    /// # Errors
    ///
    /// RuntimeError after `stop()`.
    fn with_broker<T: Send + 'static>(
        &self,
        py: Python<'_>,
        action: impl FnOnce(&nameko_broker::Broker) -> T + Send + 'static,
    ) -> PyResult<T> {
        let inner = self.inner.clone();
        let result = wait(
            py,
            None,
            async move { inner.lock().await.as_ref().map(action) },
        )?;
        result
            .flatten()
            .ok_or_else(|| PyRuntimeError::new_err("the broker was stopped"))
    }
}

fn start_error(error: &BrokerError, host: &str, port: u16) -> PyErr {
    let reason = error
        .source()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let port = match error {
        BrokerError::Tls { reason } => return PyValueError::new_err(reason.clone()),
        BrokerError::ListenManagement { port, .. } | BrokerError::ListenTls { port, .. } => *port,
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
    let vhost_queues = stats.queues.iter().filter(|((owner, _), _)| owner == vhost);
    for ((_, name), counts) in vhost_queues {
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
