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

impl Login {
    /// Returns the login method with the name of its SASL mechanism.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "PLAIN" => Some(Self::Plain),
            "AMQPLAIN" => Some(Self::AmqPlain),
            "EXTERNAL" => Some(Self::External),
            _ => None,
        }
    }
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

impl Verify {
    /// Returns the verification with the name of a constant of Python's `ssl`, such as
    /// `CERT_NONE`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "CERT_NONE" => Some(Self::None),
            "CERT_OPTIONAL" => Some(Self::Optional),
            "CERT_REQUIRED" => Some(Self::Required),
            _ => None,
        }
    }

    /// Returns the verification with the value of a constant of Python's `ssl`, from 0 to 2.
    pub fn from_value(value: i64) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Optional),
            2 => Some(Self::Required),
            _ => None,
        }
    }
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
    /// Name of the server for the handshake and the check of the certificate; by default the host
    /// of the URI.
    pub server_name: Option<String>,
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
    /// Limit of channels, 0 for none. The broker may have a lower one.
    pub channel_max: u16,
    /// Limit of a frame in bytes, at least 4096, or 0 for none. The broker may have a lower one.
    pub frame_max: u32,
    /// Timeout of one attempt, from the TCP connect to the end of the handshake.
    pub connect_timeout: Duration,
}

impl ConnectOptions {
    /// Creates options from one URI or several, separated by `;`, and from their parameters, which
    /// apply to all of them. Without parameters the defaults are those of [`new`](Self::new).
    ///
    /// | parameter | option |
    /// |---|---|
    /// | `heartbeat` | [`heartbeat`](Self::heartbeat) in seconds, 0 for none |
    /// | `connect_timeout`, `connection_timeout` | [`connect_timeout`](Self::connect_timeout), in seconds, in milliseconds |
    /// | `channel_max`, `frame_max` | [`channel_max`](Self::channel_max), [`frame_max`](Self::frame_max) |
    /// | `login_method`, `auth_mechanism` | [`login`](Self::login), by the name of the mechanism |
    /// | `name` | [`connection_name`](Self::connection_name) |
    /// | `ssl` | whether to use TLS; the parameters below imply it |
    /// | `ssl_ca_certs`, `cacertfile` | [`ca_certs`](Tls::ca_certs) |
    /// | `ssl_certfile`, `certfile` | [`certfile`](Tls::certfile) |
    /// | `ssl_keyfile`, `keyfile` | [`keyfile`](Tls::keyfile) |
    /// | `ssl_cert_reqs`, `verify` | [`verify`](Tls::verify): `CERT_NONE`, ...; `verify_peer`, `verify_none` |
    /// | `ssl_check_hostname` | [`check_hostname`](Tls::check_hostname) |
    /// | `server_name_indication` | [`server_name`](Tls::server_name) |
    ///
    /// # Errors
    ///
    /// [`Error::BadUri`] if `uri` cannot be parsed, see [`Uri::parse_list`], or a parameter is
    /// unknown, invalid, or given twice with different values.
    pub fn from_uri(uri: &str) -> Result<Self, Error> {
        let (uris, parameters) = Uri::parse_with_parameters(uri)?;
        let mut options = Self::new(uris);
        for parameter in parameters {
            parameter.apply(&mut options);
        }
        Ok(options)
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
            channel_max: 0,
            frame_max: 0,
            connect_timeout: Duration::from_secs(10),
        }
    }
}
