//! The course of one socket: who listens meets it, hears what the peer sends, and learns that it left.

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
    server::Settings,
    transport,
};

/// Hears what a peer sends.
pub trait SocketListener: Send + Sync {
    /// The peer is there. Called once, first. An error is the reason why it is sent away, and nothing that it sends is heard.
    fn met(&self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// A message: text, or bytes that need not be. The next one comes when this is done.
    fn message(&self, body: Bytes) -> impl Future<Output = ()> + Send;

    /// The peer has left, or is lost, and what it had sent before was heard, unless the socket was closed. Called once, last.
    fn left(&self) -> impl Future<Output = ()> + Send;
}

/// Serves a socket to its end. It is closed between two messages when `stopping` is true. A peer that says goodbye is answered
/// when the listener has heard that it left, or after two seconds.
pub(super) async fn run<S>(
    stream: WebSocketStream<S>,
    outbox: &Outbox,
    settings: &Settings,
    mut stopping: watch::Receiver<bool>,
    listener: &impl SocketListener,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Whether nothing more comes of the peer, and whether the listener has heard of that.
    let (over, left) = (watch::Sender::new(false), watch::Sender::new(false));
    let leave = || async {
        over.send_replace(true);
        // Its sender is here.
        let _ = left.subscribe().wait_for(|it| *it).await;
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
                // Who has left waits for no reply.
                tokio::select! {
                    () = outbox.room() => {}
                    _ = gone.wait_for(|it| *it) => {}
                }
                waiting.recv().await
            };
            let next = tokio::select! {
                biased;
                // An error says that the server is gone.
                _ = stopping.wait_for(|it| *it) => {
                    outbox.close(Closing::after_all(CloseCode::Away, "the service stops"));
                    break;
                }
                next = next => next,
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
