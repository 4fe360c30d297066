//! The connection of one socket: what is read from it, and what is written.

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

/// How long the two sides of a socket have to say goodbye.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many pongs may wait to be sent.
const MAX_QUEUED_PONGS: usize = 64;

/// Carries messages from the peer to `inbox`, and from `outbox` to the peer, until one of them closes the socket or is gone.
/// The connection is closed when it returns, and so is `outbox`. A peer that says goodbye is answered when `left` is done.
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
        // A peer whose requests are not read is not heard either.
        let is_there = || pulse.heard.swap(false, Ordering::Relaxed) || inbox.is_full();
        let mut reading = std::pin::pin!(read(&mut stream, outbox, &inbox, &pulse, left));
        let mut writing = std::pin::pin!(write(&mut sink, outbox, ping, &pulse, is_there));
        tokio::select! {
            ended = reading.as_mut() => {
                outbox.close(Closing::gone());
                // There may be a last word for it.
                let _ = timeout(CLOSE_TIMEOUT, writing).await;
                ended
            }
            () = writing.as_mut() => {
                outbox.close(Closing::gone());
                // The peer answers a close with its own.
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

/// Says that no more comes, then reads what the peer still sends. Without this, the system answers the unread bytes with a
/// reset, which may overtake the close.
async fn linger(connection: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut scrap = vec![0; 4096];
    if connection.shutdown().await.is_ok() {
        while let Ok(1..) = connection.read(&mut scrap).await {}
    }
}

/// What who reads and who writes know of the peer.
struct Pulse {
    /// Whether anything came since it was last asked.
    heard: AtomicBool,
    /// One permit per pong that may still be made.
    pongs: Semaphore,
    /// Told when there is a pong to send.
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
    /// A pong was made. Returns when there is room for the next.
    async fn owe_pong(&self) {
        self.due.notify_one();
        if let Ok(room) = self.pongs.acquire().await {
            room.forget();
        }
    }

    /// All that were made are on their way.
    fn pongs_are_sent(&self) {
        let sent = MAX_QUEUED_PONGS.saturating_sub(self.pongs.available_permits());
        self.pongs.add_permits(sent);
    }
}

/// How reading ended.
#[derive(PartialEq)]
enum Ended {
    /// The peer has closed or is gone, or nobody listens any more.
    There,
    /// The peer broke the rules, and may go on sending.
    Fault,
}

/// Reads until the peer has closed, is gone or breaks the rules.
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
            // Who reads has made a pong: it waits in memory until it is sent.
            Ok(Message::Ping(_)) => {
                pulse.owe_pong().await;
                continue;
            }
            // It is answered by who reads: when reading goes on.
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
        // Who says goodbye reads on to the peer's own, also where it had waited for room: a connection that is closed on
        // unread bytes is reset, and what was sent before may be lost with it.
        if !outbox.is_closing() && !inbox.push(body).await && !outbox.is_closing() {
            return Ended::There;
        }
    }
    Ended::There
}

/// Spelled out, since both halves of a stream are one type to the compiler.
async fn next<S>(stream: &mut S) -> Option<Result<Message, WsError>>
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
{
    stream.next().await
}

/// What a peer is told that broke the rules. Codes: RFC 6455, section 7.4.
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

/// Writes what is to be sent, and asks a silent peer whether it is there. Returns when it has sent a close, or cannot send.
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
                    tracing::debug!("a websocket's peer no longer answers");
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
        // A peer that takes nothing for long is given up by the connection, unless too much waits for it before.
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
    // A peer that takes nothing gets nothing.
    let _ = timeout(CLOSE_TIMEOUT, sink.send(Message::Close(Some(frame)))).await;
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// Time stands still while anything can go on: a limit is over at once when nothing can.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_and_does_not_listen_is_not_read() {
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
        assert!(taken.is_err(), "all of it was taken");
    }
}
