//! One socket, from its first message to its last.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
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
    super::request::Request as HttpRequest,
    frames::{self, Request},
    outbox::{Closing, Next, Outbox},
    server::{Occasion, Shared},
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::MethodHandle,
    error::{Error, Result},
    protocol::Fault,
    service::Outcome,
};

/// How long the two sides of a socket have to say goodbye.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// How many requests of one socket may wait for the one that runs. What comes then is not read before there is room.
const WAITING: usize = 16;

/// A socket that has just been opened.
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) outbox: Arc<Outbox>,
    pub(super) request: HttpRequest,
}

/// Serves a socket to its end.
pub(super) async fn serve<S>(stream: WebSocketStream<S>, opening: Opening, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Opening {
        id,
        outbox,
        request,
    } = opening;
    if let Ok(greeting) = frames::event("connected", &Connected { socket_id: &id }) {
        outbox.push(greeting.into());
    }
    shared.hub.add(&id, outbox.clone());
    let present = Present {
        id: &id,
        shared: &shared,
    };
    let (sink, stream) = stream.split();
    let heard = AtomicBool::new(true);
    let (requests, waiting) = mpsc::channel(WAITING);
    let mut reading = std::pin::pin!(read(stream, &outbox, &heard, &requests));
    // A peer whose requests are not read is not heard either.
    let is_there = || heard.swap(false, Ordering::Relaxed) || requests.capacity() == 0;
    let mut writing = std::pin::pin!(write(sink, &outbox, shared.settings.ping, is_there));
    let working = work(&id, &outbox, &shared, waiting, request);
    tokio::select! {
        () = reading.as_mut() => {
            outbox.close(Closing::gone());
            // There may be a last word for it.
            let _ = timeout(FAREWELL, writing).await;
        }
        () = writing.as_mut() => {
            // The peer answers a close with its own.
            let _ = timeout(FAREWELL, reading).await;
        }
        () = working => {}
    }
    let channels = present.leave();
    for hook in shared.hooks(Occasion::Disconnect) {
        let arguments = arguments(&hook, &id, |name| match name {
            "channels" => Some(serde_json::json!(channels)),
            _ => None,
        });
        run_hook(&shared, &hook, arguments).await;
    }
    drop(present);
}

#[derive(serde::Serialize)]
struct Connected<'a> {
    socket_id: &'a str,
}

/// A socket in the hub; leaves it however the task ends.
struct Present<'a> {
    id: &'a str,
    shared: &'a Shared,
}

impl Present<'_> {
    /// It is told nothing any more. What it listened to.
    fn leave(&self) -> BTreeSet<String> {
        self.shared.hub.remove(self.id)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.leave();
        self.shared.hub.ended();
    }
}

/// Reads until the peer has closed, is gone or breaks the rules.
async fn read<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    outbox: &Outbox,
    heard: &AtomicBool,
    requests: &mpsc::Sender<Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = next(&mut stream).await {
        heard.store(true, Ordering::Relaxed);
        let body = match message {
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Binary(bytes)) => bytes,
            // A pong is sent, and a close answered, by who reads.
            Ok(_) => continue,
            Err(error) => {
                if let Some((code, reason)) = fault(&error) {
                    outbox.close(Closing::now(code, &reason));
                }
                tracing::debug!("websocket ended: {error}");
                return;
            }
        };
        if !outbox.is_closing() && requests.send(body).await.is_err() {
            return;
        }
    }
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
    // The reason of a close has 123 bytes at most.
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(120));
    Some((code, reason))
}

/// Writes what is to be sent, and asks a silent peer whether it is there. Returns when it has sent a close, or cannot send.
async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    outbox: &Outbox,
    ping: Option<Duration>,
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
                Next::Message(text) => Message::Text(text),
                Next::Close(closing) => return say_goodbye(sink, closing).await,
            },
            () = ping => {
                if !is_there() {
                    tracing::debug!("a websocket's peer no longer answers");
                    return;
                }
                Message::Ping(Bytes::new())
            }
        };
        // A peer that takes nothing for long is given up by the connection, unless too much waits for it before.
        tokio::select! {
            sent = sink.send(message) => if sent.is_err() {
                return;
            },
            closing = outbox.cut() => return say_goodbye(sink, closing).await,
        }
    }
}

async fn say_goodbye(mut sink: impl Sink<Message> + Unpin, closing: Closing) {
    let Some((code, reason)) = closing.frame else {
        return;
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // A peer that takes nothing gets nothing.
    let _ = timeout(FAREWELL, sink.send(Message::Close(Some(frame)))).await;
}

/// Handles the requests of a socket, one after the other. Goes on until it is dropped.
async fn work(
    id: &str,
    outbox: &Arc<Outbox>,
    shared: &Shared,
    mut waiting: mpsc::Receiver<Bytes>,
    request: HttpRequest,
) {
    for hook in shared.hooks(Occasion::Connect) {
        let arguments = arguments(&hook, id, |name| opened_with(&request, name));
        if let Some(fault) = run_hook(shared, &hook, arguments).await {
            tracing::debug!(
                "{} refused a socket: {}: {fault}",
                hook.name(),
                fault.exc_type
            );
            let mut reason = fault.to_string();
            reason.truncate(reason.floor_char_boundary(120));
            outbox.close(Closing::after_all(CloseCode::Policy, &reason));
            return std::future::pending().await;
        }
    }
    let mut stopping = shared.stopping.subscribe();
    loop {
        let message = tokio::select! {
            biased;
            _ = stopping.wait_for(|it| *it) => None,
            message = async {
                outbox.room().await;
                waiting.recv().await
            } => message,
        };
        match message {
            Some(message) => handle(id, outbox, shared, &message).await,
            None => {
                outbox.close(Closing::after_all(CloseCode::Away, "the service stops"));
                return std::future::pending().await;
            }
        }
    }
}

/// Runs the worker of one request to its end.
async fn handle(id: &str, outbox: &Arc<Outbox>, shared: &Shared, message: &[u8]) {
    let mut reply = Reply {
        outbox: outbox.clone(),
        correlation_id: "null".to_owned(),
        sent: false,
    };
    let call = Request::read(message).and_then(|request| {
        reply.correlation_id.clone_from(&request.correlation_id);
        let method = shared
            .method(&request.method)
            .ok_or_else(|| Fault::of(&Error::MethodNotFound(request.method.clone())))?;
        let arguments = request.arguments(id).map_err(|error| Fault::of(&error))?;
        Ok((method, arguments))
    });
    let (method, arguments) = match call {
        Ok(call) => call,
        Err(fault) => return reply.refuse(&fault),
    };
    let Some(container) = shared.container.upgrade() else {
        return;
    };
    // A task of the container: it runs to its end, also when the socket goes meanwhile.
    let mut worker = container.spawn_worker(&method, arguments, Table::new(), move |outcome| {
        std::future::ready(reply.send(outcome))
    });
    drop(container);
    worker.wait().await;
}

/// Where the reply to one request goes. One that was not sent says that the container stops.
struct Reply {
    outbox: Arc<Outbox>,
    correlation_id: String,
    sent: bool,
}

impl Reply {
    /// Sends what the worker ended with. Providers see what was sent.
    fn send(mut self, outcome: Outcome) -> Outcome {
        let outcome = outcome.and_then(|value| {
            // Types of the service write the result: their panic is the call's outcome, as one of the method is.
            match catch_unwind(AssertUnwindSafe(|| value.to_json())) {
                Ok(Ok(json)) => Ok((value, json)),
                Ok(Err(error)) => Err(Fault::unserializable(&format!(
                    "{}: {error}",
                    value.describe()
                ))),
                Err(panic) => Err(Fault::panic(panic.as_ref())),
            }
        });
        match outcome {
            Ok((value, json)) => {
                self.push(frames::result(&json, &self.correlation_id));
                Ok(value)
            }
            Err(fault) => {
                self.push(frames::error(&fault, &self.correlation_id));
                Err(fault)
            }
        }
    }

    /// Answers a request that no worker was made for.
    fn refuse(mut self, fault: &Fault) {
        self.push(frames::error(fault, &self.correlation_id));
    }

    fn push(&mut self, text: String) {
        self.sent = true;
        // One whose socket is gone is for nobody.
        self.outbox.push(text.into());
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            let fault = Fault::nameko("ContainerBeingKilled", "the service stops");
            self.push(frames::error(&fault, &self.correlation_id));
        }
    }
}

/// Runs a method when a socket comes or goes. What it failed with.
async fn run_hook(
    shared: &Shared,
    method: &MethodHandle,
    arguments: Result<Arguments>,
) -> Option<Fault> {
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return Some(Fault::of(&error)),
    };
    let container = shared.container.upgrade()?;
    let (failed, failure) = tokio::sync::oneshot::channel();
    let mut worker = container.spawn_worker(method, arguments, Table::new(), |outcome| {
        // Nobody waits when the socket's task is dropped.
        let _ = failed.send(outcome.as_ref().err().cloned());
        std::future::ready(outcome)
    });
    drop(container);
    worker.wait().await;
    failure.await.ok().flatten()
}

/// The arguments of a hook: the socket's id, and what it asks for by name.
fn arguments(
    method: &MethodHandle,
    socket_id: &str,
    known: impl Fn(&str) -> Option<serde_json::Value>,
) -> Result<Arguments> {
    let named = method.params().iter().skip(1);
    named
        .filter_map(|it| known(it.name).map(|value| (it.name, value)))
        .try_fold(
            Arguments::new().arg(socket_id)?,
            |arguments, (name, value)| arguments.kwarg(name, value),
        )
}

/// What a connect hook may know of the request that opened the socket.
fn opened_with(request: &HttpRequest, name: &str) -> Option<serde_json::Value> {
    match name {
        "headers" => {
            let mut headers = serde_json::Map::new();
            for (name, value) in request.headers() {
                let value = String::from_utf8_lossy(value.as_bytes());
                headers.insert(name.to_string(), value.into());
            }
            Some(headers.into())
        }
        "query" => {
            let pairs = request.query_pairs().iter().cloned();
            let query: serde_json::Map<_, _> =
                pairs.map(|(name, value)| (name, value.into())).collect();
            Some(query.into())
        }
        _ => None,
    }
}
