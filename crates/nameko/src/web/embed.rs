//! A port with a single handler for all requests, with the limits of the `#[http]` server but
//! without its routes. For front ends in other languages; not covered by semver.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use http::request::Parts;
use tokio::{net::TcpListener, time::Instant};

use super::{
    address::KEY,
    handler::Handler,
    listener::{self, Listener},
    raw::{RawRequest, Upgrade},
    response::Response,
    settings::{Limits, Settings},
    target::Target,
};
use crate::config::{Config, ConfigError};

use super::error::Error;

pub use hyper::ext::ReasonPhrase;

pub use super::body_reader::BodyReader;
#[cfg(feature = "websocket")]
pub use super::websocket::raw_socket::{
    Origins, Socket, SocketListener, SocketSettings, handshake, serve as serve_socket,
};

/// What a site may be configured with: `WEB_SERVER_*`, `WEBSOCKET_*` and `stop_timeout`.
/// `WEB_SERVER_ADDRESS` is not read; a body may be of any size, unless `WEB_SERVER_MAX_BODY` is
/// given.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    reuse_port: bool,
    limits: Limits,
    #[cfg(feature = "websocket")]
    sockets: SocketSettings,
}

impl ServerSettings {
    /// Reads the configuration keys.
    ///
    /// # Errors
    /// If a key has an invalid value.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let Settings {
            reuse_port,
            mut limits,
            ..
        } = Settings::from_config(config)?;
        if config.get("WEB_SERVER_MAX_BODY").is_none() {
            limits.max_body = usize::MAX;
        }
        Ok(Self {
            reuse_port,
            limits,
            #[cfg(feature = "websocket")]
            sockets: SocketSettings::from_config(config)?,
        })
    }

    /// Returns the settings of WebSockets.
    #[cfg(feature = "websocket")]
    pub fn sockets(&self) -> SocketSettings {
        self.sockets
    }

    /// Returns the time limit for requests in progress during a stop.
    pub fn stop_timeout(&self) -> Duration {
        self.limits.stop_timeout
    }
}

/// A bound port; connections wait in the backlog until it is served.
#[derive(Debug)]
pub struct BoundServer {
    socket: TcpListener,
    address: SocketAddr,
    settings: ServerSettings,
}

/// A bind error with a remedy.
#[derive(Debug)]
pub struct CannotListen {
    /// Error message, a sentence.
    pub text: String,
    /// Error of the operating system.
    pub source: io::Error,
}

impl BoundServer {
    /// Binds the first usable address of `host`; port 0 selects a free port. Must be called within
    /// a Tokio runtime.
    ///
    /// # Errors
    /// If the host has no address, or none can be bound.
    pub fn bind(host: &str, port: u16, settings: ServerSettings) -> Result<Self, CannotListen> {
        let unknown = |source: io::Error| CannotListen {
            text: format!("{KEY} has the host `{host}`, which cannot be resolved: {source}"),
            source,
        };
        let mut refused = None;
        for address in (host, port).to_socket_addrs().map_err(unknown)? {
            let bound = listener::bind(address, settings.reuse_port)
                .and_then(|socket| Ok((socket.local_addr()?, socket)));
            match bound {
                Ok((address, socket)) => {
                    return Ok(Self {
                        socket,
                        address,
                        settings,
                    });
                }
                Err(source) => {
                    refused.get_or_insert((address, source));
                }
            }
        }
        Err(match refused {
            Some((address, source)) => cannot_listen(address, source),
            None => unknown(io::Error::other("it has no address")),
        })
    }

    /// Returns the local address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts passing requests to `handler`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the operating system does not report the local address.
    pub fn serve(self, handler: impl Handler) -> io::Result<EmbeddedServer> {
        let target = Target::Embedded(Box::new(handler));
        Ok(EmbeddedServer {
            listener: Listener::open(self.socket, target, self.settings.limits)?,
            stop_timeout: self.settings.limits.stop_timeout,
        })
    }

    /// Returns the limits for [`open`].
    pub fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            max: self.settings.limits.max_body,
            timeout: self.settings.limits.body_timeout,
        }
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for BoundServer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A port that is served. Its connections are cut when it is dropped.
pub struct EmbeddedServer {
    listener: Arc<Listener>,
    stop_timeout: Duration,
}

impl EmbeddedServer {
    /// Closes the port. Requests in progress continue.
    pub async fn withdraw(&self) {
        self.listener.withdraw().await;
    }

    /// Closes the port, waits for requests in progress up to the stop timeout, then aborts the
    /// connections.
    pub async fn stop(&self) {
        self.listener
            .leave("", &[], Instant::now() + self.stop_timeout)
            .await;
    }

    /// Aborts the connections.
    pub fn kill(&self) {
        self.listener.leave_now("", &[]);
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for EmbeddedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedServer")
            .field("address", &self.listener.address())
            .finish_non_exhaustive()
    }
}

/// Limits of request bodies.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    max: usize,
    timeout: Duration,
}

/// Splits a request into its head, its streamed body, and its connection for protocol upgrades.
pub fn open(request: RawRequest, limits: BodyLimits) -> (Parts, BodyReader, Upgrade) {
    request.open(limits.max, limits.timeout)
}

/// Creates the response to an unreadable request.
pub fn refusal(error: Error) -> Response {
    error.into_response()
}

/// Sets a custom reason phrase.
pub fn set_reason(response: &mut Response, reason: ReasonPhrase) {
    response.set_reason(reason);
}

/// Creates the response to a request during the stop.
pub fn stopping() -> Response {
    Error::stopping().into_response()
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> CannotListen {
    let why = match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "is {address}, which another program listens on, or another service of this one ({source}): stop it, or choose \
             another port; 0 takes a free one"
        ),
        _ => listener::cannot_listen(address, None, &source),
    };
    CannotListen {
        text: format!("{KEY} {why}"),
        source,
    }
}
