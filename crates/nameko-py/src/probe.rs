//! Probe for a broker.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use nameko::amqp::Uri;
use pyo3::prelude::*;

use crate::error::Failure;

/// Returns whether the host and port of one of the URIs accepts TCP connections.
#[pyfunction]
#[pyo3(signature = (amqp_uri, timeout = 1.0))]
pub(crate) fn probe(py: Python<'_>, amqp_uri: &str, timeout: f64) -> PyResult<bool> {
    let uris = Uri::parse_list(amqp_uri).map_err(|error| Failure::from(error).into_err(py))?;
    let timeout = Duration::try_from_secs_f64(timeout).map_err(|error| {
        pyo3::exceptions::PyValueError::new_err(format!("timeout {timeout}: {error}"))
    })?;
    Ok(py.detach(|| uris.iter().any(|uri| accepts_connections(uri, timeout))))
}

fn accepts_connections(uri: &Uri, timeout: Duration) -> bool {
    let Ok(addresses) = (uri.host.as_str(), uri.port).to_socket_addrs() else {
        return false;
    };
    let end = Instant::now() + timeout;
    addresses.into_iter().any(|address| {
        let left = end.saturating_duration_since(Instant::now());
        !left.is_zero() && TcpStream::connect_timeout(&address, left).is_ok()
    })
}
