//! How to connect.

use std::{path::PathBuf, time::Duration};

use crate::{error::Error, uri::Uri};

/// How to prove who one is (SASL mechanism).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Login {
    /// User and password, RFC 4616.
    #[default]
    Plain,
    /// User and password in a field table, RabbitMQ's older way.
    AmqPlain,
    /// The client certificate tells who it is; user and password are not sent.
    External,
}

/// Whether the server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Not at all: encrypted, but with whomever answers.
    None,
    /// As `Required`: a server always shows a certificate (Python's `CERT_OPTIONAL`).
    Optional,
    /// It must be signed by a known authority and be in date.
    #[default]
    Required,
}

/// How TLS is set up. Files are PEM and are read at each connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whether the server's certificate is checked.
    pub verify: Verify,
    /// Certificates of the authorities to trust; the system's when absent.
    pub ca_certs: Option<PathBuf>,
    /// The client's certificate with its chain.
    pub certfile: Option<PathBuf>,
    /// The client's key, when it is not in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The certificate must also be for the host of the URI. Off unless asked for, as in Nameko.
    pub check_hostname: bool,
}

/// How to connect to a broker. Two connections with equal options may be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// Brokers, tried in this order.
    pub uris: Vec<Uri>,
    /// Heartbeat interval in seconds, 0 for none. The broker may ask for a shorter one.
    pub heartbeat: u16,
    /// How to prove who one is.
    pub login: Login,
    /// TLS for every URI; without it only `amqps` URIs use TLS, with [`Tls::default`].
    pub tls: Option<Tls>,
    /// A name that the broker shows for the connection.
    pub connection_name: Option<String>,
    /// How long one attempt may take from TCP to the end of the handshake.
    pub connect_timeout: Duration,
}

impl ConnectOptions {
    /// The usual options for `uri`, see [`Uri::parse_list`].
    ///
    /// # Errors
    ///
    /// [`Error::BadUri`].
    pub fn from_uri(uri: &str) -> Result<Self, Error> {
        Ok(Self::new(Uri::parse_list(uri)?))
    }

    /// The usual options: heartbeat 60 s, PLAIN, TLS only for `amqps`, 10 s to connect.
    pub fn new(uris: Vec<Uri>) -> Self {
        Self {
            uris,
            heartbeat: 60,
            login: Login::default(),
            tls: None,
            connection_name: None,
            connect_timeout: Duration::from_secs(10),
        }
    }
}
