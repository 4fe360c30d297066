//! A socket without methods and hub, for other front ends; may change at any time.

use std::{fmt, sync::Arc};

use http::request::Parts;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    super::{error::Error, raw::Upgrade, response::Response},
    outbox::{Closing, Outbox},
    server::{self, Handshake, Settings},
    session,
};
pub use super::{origins::Origins, session::SocketListener};
use crate::config::{Config, ConfigError};

/// What the configuration says about sockets: `WEBSOCKET_*`.
#[derive(Debug, Clone, Copy)]
pub struct SocketSettings(Settings);

impl SocketSettings {
    /// Reads the keys.
    ///
    /// # Errors
    /// One does not hold what it should.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        Settings::from_config(config).map(Self)
    }
}

/// The end of a socket that is sent to. Cheap to clone; all clones are one socket.
#[derive(Clone)]
pub struct Socket(Arc<Outbox>);

impl Socket {
    /// A socket that is not connected yet. What is sent waits.
    pub fn new(settings: &SocketSettings) -> Self {
        Self(Arc::new(Outbox::new(settings.0.max_queue)))
    }

    /// Sends a message. `false` when the socket is closed; it is, when the peer does not take what waits for it.
    pub fn send(&self, text: String) -> bool {
        self.0.push(text.into())
    }

    /// Closes the socket when all that waits is sent. Codes: RFC 6455, section 7.4.
    pub fn close(&self, code: u16, reason: &str) {
        self.0
            .close(Closing::after_all(CloseCode::from(code), reason));
    }

    /// Whether nothing more can be sent.
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

/// The response that accepts a handshake.
///
/// # Errors
/// It is none.
pub fn handshake(head: &Parts, has_body: bool) -> Result<Response, Error> {
    server::switch(&Handshake {
        method: &head.method,
        version: head.version,
        headers: &head.headers,
        has_body,
    })
}

/// Serves `socket` to its end, on the connection that was switched. It is closed between two messages when `stopping` is true. A
/// listener hears that a peer left which was never there.
pub async fn serve(
    upgrade: Upgrade,
    socket: Socket,
    settings: SocketSettings,
    stopping: watch::Receiver<bool>,
    listener: impl SocketListener,
) {
    let (outbox, settings) = (&*socket.0, settings.0);
    let Some(stream) = server::switched(upgrade, &settings).await else {
        outbox.close(Closing::gone());
        return listener.left().await;
    };
    session::run(stream, outbox, &settings, stopping, &listener).await;
}
