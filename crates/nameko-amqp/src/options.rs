//! Options of a connection.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use crate::{error::Error, uri::Uri};

/// Login method (SASL mechanism).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Login {
    /// PLAIN: user and password, RFC 4616.
    #[default]
    Plain,
    /// AMQPLAIN: user and password in a field table, an older method of RabbitMQ.
    AmqPlain,
    /// EXTERNAL: the client certificate identifies the user; user and password are not sent.
    External,
}

/// Verification of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// No verification: encrypted, without authentication of the server.
    None,
    /// The same as `Required`, since a server always sends a certificate (Python's
    /// `CERT_OPTIONAL`).
    Optional,
    /// The certificate must be valid and signed by a trusted authority.
    #[default]
    Required,
}

/// Options for TLS. The files are in the PEM format and read at each connect.
///
/// They need the cargo feature `tls`; without it every TLS connection fails with [`Error::Tls`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Verification of the server's certificate.
    pub verify: Verify,
    /// File with the certificates of the trusted authorities; by default those of the system.
    pub ca_certs: Option<PathBuf>,
    /// File with the client's certificate and its chain.
    pub certfile: Option<PathBuf>,
    /// File with the client's private key; by default `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Whether the certificate must match the host of the URI. Off by default.
    pub check_hostname: bool,
}

/// Options of a connection. Equal options share a [`Publisher`](crate::Publisher).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// Brokers, tried in order.
    pub uris: Vec<Uri>,
    /// Heartbeat interval in seconds, 0 for none. The broker may choose a shorter one.
    pub heartbeat: u16,
    /// Login method.
    pub login: Login,
    /// TLS for all URIs. `None` means TLS with [`Tls::default`] for `amqps` URIs only.
    pub tls: Option<Tls>,
    /// Name of the connection, as displayed by the broker.
    pub connection_name: Option<String>,
    /// The client property `product`, as displayed by the broker: `nameko-amqp` by default.
    pub product: Cow<'static, str>,
    /// Timeout of one attempt, from the TCP connect to the end of the handshake.
    pub connect_timeout: Duration,
}

impl ConnectOptions {
    /// Creates options with the defaults of [`new`](Self::new) for one URI or several, separated by
    /// `;`.
    ///
    /// # Errors
    ///
    /// [`Error::BadUri`] if `uri` cannot be parsed, see [`Uri::parse_list`].
    pub fn from_uri(uri: &str) -> Result<Self, Error> {
        Ok(Self::new(Uri::parse_list(uri)?))
    }

    /// Creates options with the defaults: a heartbeat of 60 s, PLAIN, TLS only for `amqps` URIs, a
    /// connect timeout of 10 s.
    pub fn new(uris: Vec<Uri>) -> Self {
        Self {
            uris,
            heartbeat: 60,
            login: Login::default(),
            tls: None,
            connection_name: None,
            product: Cow::Borrowed(env!("CARGO_PKG_NAME")),
            connect_timeout: Duration::from_secs(10),
        }
    }
}
