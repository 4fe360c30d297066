//! A socket without methods and hub, for other front ends; may change at any time.

use std::{fmt, future::Future, sync::Arc};

use http::request::Parts;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::{Bytes, protocol::frame::coding::CloseCode};

use super::{
    super::{error::Error, raw::Upgrade, response::Response},
    inbox::Inbox,
    outbox::{Closing, Outbox},
    server::{self, Handshake, Settings},
    wire,
};
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
        // A close has 125 bytes, two of them for the code.
        let reason = reason
            .get(..reason.floor_char_boundary(120))
            .unwrap_or(reason);
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

/// Hears what a peer sends.
pub trait SocketListener: Send + Sync {
    /// A message: text, or bytes that need not be. The next one comes when this is done.
    fn message(&self, body: Bytes) -> impl Future<Output = ()> + Send;

    /// The peer has left, or is lost, and what it had sent before was heard, unless the socket was closed. Called once, last.
    fn left(&self) -> impl Future<Output = ()> + Send;
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

/// Serves `socket` to its end, on the connection that was switched. It is closed between two messages when `stopping` is true.
pub async fn serve(
    upgrade: Upgrade,
    socket: Socket,
    settings: SocketSettings,
    mut stopping: watch::Receiver<bool>,
    listener: impl SocketListener,
) {
    let (outbox, settings) = (&*socket.0, settings.0);
    // Whether nothing more comes of the peer, and whether the listener has heard of that.
    let (over, left) = (watch::Sender::new(false), watch::Sender::new(false));
    let leave = || async {
        over.send_replace(true);
        // Its sender is here.
        let _ = left.subscribe().wait_for(|it| *it).await;
    };
    let Some(stream) = server::switched(upgrade, &settings).await else {
        outbox.close(Closing::gone());
        return listener.left().await;
    };
    let (inbox, mut waiting) = Inbox::new(settings.max_message);
    let speaking = async {
        wire::speak(stream, outbox, inbox, settings.ping, leave()).await;
        leave().await;
    };
    let working = async {
        let mut ending = over.subscribe();
        loop {
            let next = tokio::select! {
                biased;
                // An error says that the server is gone.
                _ = stopping.wait_for(|it| *it) => {
                    outbox.close(Closing::after_all(CloseCode::Away, "the service stops"));
                    break;
                }
                next = async {
                    outbox.room().await;
                    waiting.recv().await
                } => next,
                _ = ending.wait_for(|it| *it) => None,
            };
            match next {
                Some(next) if !outbox.is_closed_by_us() => {
                    listener.message(next.message.clone()).await;
                }
                _ => break,
            }
        }
        // Whoever reads learns that nobody listens.
        drop(waiting);
        let _ = ending.wait_for(|it| *it).await;
        listener.left().await;
        left.send_replace(true);
    };
    tokio::join!(speaking, working);
}
