//! The lifecycle of a socket: connect, messages, disconnect.

use std::future::Future;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Bytes, protocol::frame::coding::CloseCode},
};

use super::{
    inbox::Inbox,
    outbox::{Closing, Outbox},
    settings::Settings,
    transport,
};

/// Callbacks of a socket.
pub trait SocketListener: Send + Sync {
    /// Called once, first, when the peer has connected. An error is the close reason; no messages
    /// follow.
    fn met(&self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// Called for each message, text or binary, in sequence.
    fn message(&self, body: Bytes) -> impl Future<Output = ()> + Send;

    /// Called once, last, when the peer has disconnected and its pending messages were handled, or
    /// the socket was closed.
    fn left(&self) -> impl Future<Output = ()> + Send;
}

/// Serves a socket until it closes. Once `stopping` is true, it closes between two messages. The
/// close of a peer is answered after the listener's `left`, or after two seconds.
pub(super) async fn run<S>(
    stream: WebSocketStream<S>,
    outbox: &Outbox,
    settings: &Settings,
    mut stopping: watch::Receiver<bool>,
    listener: &impl SocketListener,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Whether the peer sends no more, and whether `left` has completed.
    let (over, left) = (watch::Sender::new(false), watch::Sender::new(false));
    let leave = || async {
        over.send_replace(true);
        // Cannot fail: the sender is in scope.
        let _ = left.subscribe().wait_for(|set| *set).await;
    };
    let (inbox, mut waiting) = Inbox::new(settings.max_message);
    let speaking = async {
        transport::run(stream, outbox, inbox, settings.ping, leave()).await;
        leave().await;
    };
    let working = async {
        let mut ending = over.subscribe();
        let welcome = listener.met().await;
        if let Err(reason) = &welcome {
            outbox.close(Closing::after_all(CloseCode::Policy, reason));
        }
        while welcome.is_ok() {
            let mut gone = over.subscribe();
            let next = async {
                // A disconnected peer does not wait for a reply.
                tokio::select! {
                    () = outbox.room() => {}
                    _ = gone.wait_for(|set| *set) => {}
                }
                waiting.recv().await
            };
            let next = tokio::select! {
                biased;
                // An error means that the server was dropped.
                _ = stopping.wait_for(|set| *set) => {
                    outbox.close(Closing::after_all(CloseCode::Away, "the service is stopping"));
                    break;
                }
                next = next => next,
                _ = ending.wait_for(|set| *set) => None,
            };
            match next {
                Some(next) if !outbox.is_closed_by_us() => {
                    listener.message(next.message.clone()).await;
                }
                _ => break,
            }
        }
        // Signals the reader that no more messages are handled.
        drop(waiting);
        let _ = ending.wait_for(|set| *set).await;
        listener.left().await;
        left.send_replace(true);
    };
    tokio::join!(speaking, working);
}
