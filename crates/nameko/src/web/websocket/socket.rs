//! One socket, from its first message to its last.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::frame::coding::CloseCode};

use super::{
    super::request::Request as HttpRequest,
    frames::{self, Request},
    inbox::{Inbox, Waiting},
    outbox::{Closing, Outbox},
    server::{Occasion, Shared},
    wire,
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::MethodHandle,
    error::{Error, Result},
    protocol::Fault,
    service::Outcome,
};

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
    let (inbox, waiting) = Inbox::new(shared.settings.max_message);
    let connection = async {
        let mut channels = BTreeSet::new();
        let left = async { channels = present.leave() };
        wire::speak(stream, &outbox, inbox, shared.settings.ping, left).await;
        channels.extend(present.leave());
        channels
    };
    // Who has gone is gone at once; that he went is told when all that was done for him has ended.
    let working = work(&id, &outbox, &shared, waiting, request);
    let (channels, ()) = tokio::join!(connection, working);
    for hook in shared.hooks(Occasion::Disconnect) {
        let arguments = arguments(&hook, &id, |name| match name {
            "channels" => Some(serde_json::json!(channels)),
            _ => None,
        });
        run_hook(&shared, &hook, arguments).await;
    }
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
    }
}

/// Handles the requests of a socket, one after the other, until it is closed.
async fn work(
    id: &str,
    outbox: &Arc<Outbox>,
    shared: &Shared,
    mut waiting: mpsc::Receiver<Waiting>,
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
            return outbox.close(Closing::after_all(CloseCode::Policy, &reason));
        }
    }
    let mut stopping = shared.stopping.subscribe();
    while !outbox.is_closing() {
        let next = tokio::select! {
            biased;
            _ = stopping.wait_for(|it| *it) => {
                return outbox.close(Closing::after_all(CloseCode::Away, "the service stops"));
            }
            next = async {
                outbox.room().await;
                waiting.recv().await
            } => next,
        };
        match next {
            Some(next) if !outbox.is_closing() => handle(id, outbox, shared, &next.message).await,
            _ => return,
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
