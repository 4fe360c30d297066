//! A socket without methods and hub, for other front ends; not covered by semver.

use std::{fmt, sync::Arc};

use http::request::Parts;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    super::{error::Error, raw::Upgrade, response::Response},
    handshake::{self, Handshake},
    outbox::{Closing, Outbox},
    session,
    settings::Settings,
};
pub use super::{origins::Origins, session::SocketListener};
use crate::config::{Config, ConfigError};

/// Configuration of sockets, `WEBSOCKET_*`.
#[derive(Debug, Clone, Copy)]
pub struct SocketSettings(Settings);

impl SocketSettings {
    /// Reads the configuration keys.
    ///
    /// # Errors
    /// If a key has an invalid value.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        Settings::from_config(config).map(Self)
    }
}

/// The sending half of a socket. Cheap to clone; clones share the socket.
#[derive(Clone)]
pub struct Socket(Arc<Outbox>);

impl Socket {
    /// Creates an unconnected socket, which queues messages.
    pub fn new(settings: &SocketSettings) -> Self {
        Self(Arc::new(Outbox::new(settings.0.max_queue)))
    }

    /// Sends a message. Returns `false` if the socket is closed, for example because its queue was
    /// full.
    pub fn send(&self, text: String) -> bool {
        self.0.push(text.into())
    }

    /// Closes the socket after sending pending messages. Codes: RFC 6455, section 7.4.
    pub fn close(&self, code: u16, reason: &str) {
        self.0
            .close(Closing::after_all(CloseCode::from(code), reason));
    }

    /// Returns `true` if the socket is closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closing()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// Creates the response that accepts a handshake.
///
/// # Errors
/// If the request is not a valid WebSocket handshake.
pub fn handshake(head: &Parts, has_body: bool) -> Result<Response, Error> {
    handshake::switch(&Handshake {
        method: &head.method,
        version: head.version,
        headers: &head.headers,
        has_body,
    })
}

/// Serves `socket` on an upgraded connection until it closes. Once `stopping` is true, it closes
/// between two messages. Calls the listener's `left` even if the connection fails before `met`.
pub async fn serve(
    upgrade: Upgrade,
    socket: Socket,
    settings: SocketSettings,
    stopping: watch::Receiver<bool>,
    listener: impl SocketListener,
) {
    let (outbox, settings) = (&*socket.0, settings.0);
    let Some(stream) = handshake::switched(upgrade, &settings).await else {
        outbox.close(Closing::gone());
        return listener.left().await;
    };
    session::run(stream, outbox, &settings, stopping, &listener).await;
}
