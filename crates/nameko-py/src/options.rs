//! Connection options from Python.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;

use nameko::amqp::{ConnectOptions, Login, Publisher, Tls, Verify, sanitize};
use nameko::internal::{PRODUCT, lock};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use tokio::runtime::Handle;

use crate::error::Failure;
use crate::runtime::{self, Generation};

/// Connection options. Equal options share one publishing connection.
#[pyclass(frozen, eq, hash, module = "nameko._nameko")]
pub(crate) struct Options {
    pub(crate) connect: ConnectOptions,
    uri: String,
    /// The publisher for the I/O thread of this generation.
    publisher: Mutex<Option<(Generation, PublisherHandle)>>,
}

/// A publisher with its runtime.
#[derive(Clone)]
pub(crate) struct PublisherHandle {
    pub(crate) publisher: Publisher,
    /// The runtime of the I/O thread.
    pub(crate) runtime: Handle,
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        (&self.connect, &self.uri) == (&other.connect, &other.uri)
    }
}

impl Eq for Options {}

impl Hash for Options {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.connect.hash(state);
        self.uri.hash(state);
    }
}

impl Options {
    /// Returns the publisher of the process for these options.
    ///
    /// # Errors
    ///
    /// RuntimeError if the I/O thread cannot be started.
    pub(crate) fn publisher(&self) -> PyResult<PublisherHandle> {
        let generation = runtime::generation();
        if let Some((known, handle)) = &*lock(&self.publisher)
            && *known == generation
        {
            return Ok(handle.clone());
        }
        let handle = PublisherHandle {
            publisher: runtime::publisher(&self.connect)?,
            runtime: runtime::handle()?,
        };
        // The lookup may have started the thread.
        let generation = runtime::generation();
        *lock(&self.publisher) = Some((generation, handle.clone()));
        Ok(handle)
    }
}

#[pymethods]
impl Options {
    #[new]
    #[pyo3(
        signature = (amqp_uri, heartbeat = None, ssl = None, login_method = None, name = None),
        text_signature = "(amqp_uri, heartbeat=None, ssl=None, login_method=None, name=None)"
    )]
    /// None leaves an option to the parameters of the URI, and to its default.
    fn new(
        py: Python<'_>,
        amqp_uri: &str,
        heartbeat: Option<u16>,
        ssl: Option<&Bound<'_, PyAny>>,
        login_method: Option<&str>,
        name: Option<String>,
    ) -> PyResult<Self> {
        let mut connect = ConnectOptions::from_uri(amqp_uri)
            .map_err(|error| Failure::from(error).into_err(py))?;
        if let Some(heartbeat) = heartbeat {
            connect.heartbeat = heartbeat;
        }
        if let Some(ssl) = ssl {
            set_tls(&mut connect, ssl)?;
        }
        if let Some(name) = login_method {
            connect.login = login(name)?;
        }
        if name.is_some() {
            connect.connection_name = name;
        }
        connect.product = PRODUCT.into();
        Ok(Options {
            connect,
            uri: sanitize(amqp_uri),
            publisher: Mutex::default(),
        })
    }

    /// The URI without its password.
    #[getter]
    fn uri(&self) -> &str {
        &self.uri
    }

    fn __repr__(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("<Options {} #{:08x}>", self.uri, hasher.finish() as u32)
    }
}

fn login(name: &str) -> PyResult<Login> {
    Login::from_name(name).ok_or_else(|| {
        PyValueError::new_err(format!(
            "login method `{name}` is unknown; expected PLAIN, AMQPLAIN or EXTERNAL"
        ))
    })
}

/// Sets `AMQP_SSL`: False for no TLS, True for TLS, or a dict of the options of `ssl.wrap_socket`.
fn set_tls(connect: &mut ConnectOptions, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(truth) = value.cast::<PyBool>() {
        if truth.is_true() {
            connect.tls.get_or_insert_default();
        } else if connect.uris.iter().all(|uri| !uri.tls) {
            // The scheme amqps still means TLS.
            connect.tls = None;
        }
        return Ok(());
    }
    let dict = value.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err("the TLS options must be True, False or a dict with ca_certs, certfile, keyfile, cert_reqs")
    })?;
    let tls: &mut Tls = connect.tls.get_or_insert_default();
    for (name, value) in dict {
        let name = name.cast::<PyString>()?.to_string();
        if value.is_none() {
            continue;
        }
        match name.as_str() {
            "ca_certs" => tls.ca_certs = Some(value.extract::<PathBuf>()?),
            "certfile" => tls.certfile = Some(value.extract::<PathBuf>()?),
            "keyfile" => tls.keyfile = Some(value.extract::<PathBuf>()?),
            "check_hostname" => tls.check_hostname = value.is_truthy()?,
            // The numbers of `ssl.CERT_NONE`, `CERT_OPTIONAL`, `CERT_REQUIRED`.
            "cert_reqs" => {
                let verify = match value.extract::<i64>() {
                    Ok(number) => Verify::from_value(number),
                    Err(_) => value.extract().ok().and_then(Verify::from_name),
                };
                tls.verify = verify.ok_or_else(|| {
                    PyValueError::new_err(format!(
                        "cert_reqs is 0 (CERT_NONE), 1 (CERT_OPTIONAL) or 2 (CERT_REQUIRED), not {value}"
                    ))
                })?;
            }
            _ => tracing::warn!(
                "TLS option `{name}` is ignored: protocol version and ciphers are negotiated"
            ),
        }
    }
    Ok(())
}
