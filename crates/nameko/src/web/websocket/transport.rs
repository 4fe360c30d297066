//! Reading and writing of a socket's connection.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, Semaphore},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes, Message,
        error::{CapacityError, Error as WsError},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    inbox::Inbox,
    outbox::{Closing, Next, Outbox},
};

/// Time limit of the closing handshake.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of pending pongs.
const MAX_QUEUED_PONGS: usize = 64;

/// Transfers messages from the peer to `inbox` and from `outbox` to the peer until either side
/// closes.
///
/// Closes the connection and `outbox` before returning. Answers the close of the peer after `left`.
pub(super) async fn run<S>(
    stream: WebSocketStream<S>,
    outbox: &Outbox,
    inbox: Inbox,
    ping: Option<Duration>,
    left: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pulse = Pulse::default();
    let (mut sink, mut stream) = stream.split();
    let ended = {
        // A peer counts as alive while a full inbox keeps its messages unread.
        let is_there = || pulse.heard.swap(false, Ordering::Relaxed) || inbox.is_full();
        let mut reading = std::pin::pin!(read(&mut stream, outbox, &inbox, &pulse, left));
        let mut writing = std::pin::pin!(write(&mut sink, outbox, ping, &pulse, is_there));
        tokio::select! {
            ended = reading.as_mut() => {
                outbox.close(Closing::gone());
                // Sends a pending close frame.
                let _ = timeout(CLOSE_TIMEOUT, writing).await;
                ended
            }
            () = writing.as_mut() => {
                outbox.close(Closing::gone());
                // Waits for the peer's close frame.
                timeout(CLOSE_TIMEOUT, reading).await.unwrap_or(Ended::There)
            }
        }
    };
    if ended == Ended::Fault
        && let Ok(mut stream) = sink.reunite(stream)
    {
        let _ = timeout(CLOSE_TIMEOUT, linger(stream.get_mut())).await;
    }
}

/// Shuts down the sending side, then drains incoming bytes. Closing with unread bytes would reset
/// the connection, which may discard the close frame.
async fn linger(connection: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut scrap = vec![0; 4096];
    if connection.shutdown().await.is_ok() {
        while let Ok(1..) = connection.read(&mut scrap).await {}
    }
}

/// Liveness of the peer, shared by the reader and the writer.
struct Pulse {
    /// Whether bytes were received since the last check.
    heard: AtomicBool,
    /// One permit per pong that may still be queued.
    pongs: Semaphore,
    /// Notified when a pong is queued.
    due: Notify,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            heard: AtomicBool::new(true),
            pongs: Semaphore::new(MAX_QUEUED_PONGS),
            due: Notify::new(),
        }
    }
}

impl Pulse {
    /// Reports a queued pong, and waits for space for the next one.
    async fn owe_pong(&self) {
        self.due.notify_one();
        if let Ok(room) = self.pongs.acquire().await {
            room.forget();
        }
    }

    /// Reports that all queued pongs were sent.
    fn pongs_are_sent(&self) {
        let sent = MAX_QUEUED_PONGS.saturating_sub(self.pongs.available_permits());
        self.pongs.add_permits(sent);
    }
}

/// The reason for the end of reading.
#[derive(PartialEq)]
enum Ended {
    /// The peer has closed or is gone, or the inbox has no receiver.
    There,
    /// The peer violated the protocol and may still be sending.
    Fault,
}

/// Reads until the peer closes, disconnects or violates the protocol.
async fn read<S>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    outbox: &Outbox,
    inbox: &Inbox,
    pulse: &Pulse,
    left: impl Future<Output = ()>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut left = Some(left);
    while let Some(message) = next(stream).await {
        pulse.heard.store(true, Ordering::Relaxed);
        let body = match message {
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Binary(bytes)) => bytes,
            // Reading a ping queues a pong in memory.
            Ok(Message::Ping(_)) => {
                pulse.owe_pong().await;
                continue;
            }
            // Answered by the next read.
            Ok(Message::Close(_)) => {
                if let Some(left) = left.take() {
                    let _ = timeout(CLOSE_TIMEOUT, left).await;
                }
                continue;
            }
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!("websocket ended: {error}");
                return match fault(&error) {
                    Some((code, reason)) => {
                        outbox.close(Closing::now(code, &reason));
                        Ended::Fault
                    }
                    None => Ended::There,
                };
            }
        };
        // While closing, reading continues up to the peer's close frame even if the inbox was full:
        // closing with unread bytes would reset the connection and may discard sent messages.
        if !outbox.is_closing() && !inbox.push(body).await && !outbox.is_closing() {
            return Ended::There;
        }
    }
    Ended::There
}

/// `StreamExt::next` with the item type spelled out for the compiler.
async fn next<S>(stream: &mut S) -> Option<Result<Message, WsError>>
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
{
    stream.next().await
}

/// Returns the close frame for a protocol violation. Codes: RFC 6455, section 7.4.
fn fault(error: &WsError) -> Option<(CloseCode, String)> {
    let code = match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
        WsError::Utf8(_) => CloseCode::Invalid,
        WsError::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            return None;
        }
        WsError::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some((code, error.to_string()))
}

/// Writes messages, and pings a silent peer. Returns after sending a close frame, or on a write
/// error.
async fn write<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    outbox: &Outbox,
    ping: Option<Duration>,
    pulse: &Pulse,
    is_there: impl Fn() -> bool,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = ping.map(|period| {
        let mut pings = interval_at(Instant::now() + period, period);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings
    });
    loop {
        let ping = async {
            match &mut pings {
                Some(pings) => drop(pings.tick().await),
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            next = outbox.next() => match next {
                Next::Message(text) => Some(Message::Text(text)),
                Next::Close(closing) => return say_goodbye(sink, closing).await,
            },
            () = ping => {
                if !is_there() {
                    tracing::debug!("a websocket peer no longer responds");
                    return;
                }
                Some(Message::Ping(Bytes::new()))
            }
            () = pulse.due.notified() => None,
        };
        let send = async {
            match message {
                Some(message) => sink.send(message).await,
                None => sink.flush().await,
            }
        };
        // The send timeout of the connection disconnects a peer that does not read, unless the
        // outbox fills up first.
        tokio::select! {
            sent = send => match sent {
                Ok(()) => pulse.pongs_are_sent(),
                Err(_) => return,
            },
            closing = outbox.cut() => return say_goodbye(sink, closing).await,
        }
    }
}

async fn say_goodbye(sink: &mut (impl Sink<Message> + Unpin), closing: Closing) {
    let Some((code, reason)) = closing.frame else {
        return;
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // Ignored if the peer does not read.
    let _ = timeout(CLOSE_TIMEOUT, sink.send(Message::Close(Some(frame)))).await;
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// The paused clock only advances when all tasks are idle.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_pings_without_reading_is_not_read() {
        let (mut peer, connection) = tokio::io::duplex(4096);
        let stream = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
        let outbox = Outbox::new(1000);
        let (inbox, _waiting) = Inbox::new(1000);
        let pings = [0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'].repeat(10_000);
        let taken = {
            let flood = timeout(Duration::from_secs(1), peer.write_all(&pings));
            tokio::select! {
                taken = flood => taken,
                () = run(stream, &outbox, inbox, None, async {}) => panic!("it ended"),
            }
        };
        assert!(taken.is_err(), "all pings were read");
    }
}
