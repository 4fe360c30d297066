//! A port of which one application answers every request, with the limits of `#[http]`'s server and none of its routes. For
//! front ends in other languages; may change at any time.

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
    listener::{self, Listener, Target},
    raw::{RawRequest, Upgrade},
    response::Response,
    server::Handler,
    settings::{Limits, Settings},
};
use crate::config::{Config, ConfigError};

use super::error::Error;

pub use hyper::ext::ReasonPhrase;

pub use super::{
    raw::RequestBody,
    websocket::raw_socket::{
        Origins, Socket, SocketListener, SocketSettings, handshake, serve as serve_socket,
    },
};

/// What a site may be configured with: `WEB_SERVER_*`, `WEBSOCKET_*` and `stop_timeout`. `WEB_SERVER_ADDRESS` is not read; a body may be of any size, unless
/// `WEB_SERVER_MAX_BODY` is given.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    reuse_port: bool,
    limits: Limits,
    sockets: SocketSettings,
}

impl ServerSettings {
    /// Reads the keys.
    ///
    /// # Errors
    /// One does not hold what it should.
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
            sockets: SocketSettings::from_config(config)?,
        })
    }

    /// Those of its WebSockets.
    pub fn sockets(&self) -> SocketSettings {
        self.sockets
    }

    /// How long requests that run may take, once the site is told to stop.
    pub fn stop_timeout(&self) -> Duration {
        self.limits.stop_timeout
    }
}

/// A port that is listened on; connections wait in the system until it is served.
#[derive(Debug)]
pub struct BoundServer {
    socket: TcpListener,
    address: SocketAddr,
    settings: ServerSettings,
}

/// Why an address cannot be listened on, with what to do.
#[derive(Debug)]
pub struct CannotListen {
    /// A sentence.
    pub text: String,
    /// What the system said.
    pub source: io::Error,
}

impl BoundServer {
    /// Listens at the first address of `host` that can be listened on. Port 0 takes a free one. Within a Tokio runtime.
    ///
    /// # Errors
    /// The host has no address, or none can be listened on.
    pub fn bind(host: &str, port: u16, settings: ServerSettings) -> Result<Self, CannotListen> {
        let unknown = |source: io::Error| CannotListen {
            text: format!("{KEY} names the host `{host}`, which cannot be looked up: {source}"),
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

    /// Where it listens: the port is a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives every request to `handler`, from now on. Within a Tokio runtime.
    ///
    /// # Errors
    /// The system does not say where it listens.
    pub fn serve(self, handler: impl Handler) -> io::Result<EmbeddedServer> {
        let target = Target::Embedded(Box::new(handler));
        Ok(EmbeddedServer {
            listener: Listener::open(self.socket, target, self.settings.limits, &[])?,
            stop_timeout: self.settings.limits.stop_timeout,
        })
    }

    /// For [`open`].
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
    /// Lets no more requests in, and closes the port. Requests that run go on.
    pub async fn withdraw(&self) {
        self.listener.withdraw().await;
    }

    /// Withdraws, waits until all clients have their answers, for the stop timeout at most, then cuts the connections.
    pub async fn stop(&self) {
        self.listener
            .leave(&[], Instant::now() + self.stop_timeout)
            .await;
    }

    /// Cuts the connections.
    pub fn kill(&self) {
        self.listener.leave_now(&[]);
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

/// What may come as the body of a request.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    max: usize,
    timeout: Duration,
}

/// Takes a request apart: its head, its body as it comes, and its connection, should another protocol be spoken on it.
pub fn open(request: RawRequest, limits: BodyLimits) -> (Parts, RequestBody, Upgrade) {
    request.open(limits.max, limits.timeout)
}

/// The response to a request that could not be read.
pub fn refusal(error: Error) -> Response {
    error.into_response()
}

/// Sets what follows the status in its line, in the place of what the standards say.
pub fn set_reason(response: &mut Response, reason: ReasonPhrase) {
    response.set_reason(reason);
}

/// The response to a request that comes too late.
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
