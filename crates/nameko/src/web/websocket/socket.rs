//! A socket of a Rust service: connect and disconnect hooks, a worker per request.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{WebSocketStream, tungstenite::Bytes};

use super::{
    super::request::Request as HttpRequest,
    frames::{self, Request},
    outbox::Outbox,
    session::{self, SocketListener},
    shared::{Occasion, Shared},
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::MethodHandle,
    error::{Error, Result},
    protocol::Fault,
    reply::Outcome,
};

/// A newly opened socket.
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) outbox: Arc<Outbox>,
    pub(super) request: HttpRequest,
    /// Context data of the socket's workers.
    pub(super) context: Table,
}

/// Serves a socket until it closes.
pub(super) async fn serve<S>(stream: WebSocketStream<S>, opening: Opening, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Opening {
        id,
        outbox,
        request,
        context,
    } = opening;
    if let Ok(greeting) = frames::event("connected", &Connected { socket_id: &id }) {
        outbox.push(greeting.into());
    }
    shared.hub.add(&id, outbox.clone());
    let present = Present {
        id: &id,
        outbox: &outbox,
        shared: &shared,
        request,
        context,
        channels: OnceLock::new(),
    };
    let stopping = shared.stopping.subscribe();
    session::run(stream, &outbox, &shared.settings, stopping, &present).await;
    // The connection closes without waiting for the disconnect hooks.
    let channels = present.leave();
    for hook in shared.hooks(Occasion::Disconnect) {
        let arguments = hook_arguments(&hook, Some(&id), |name| match name {
            "channels" => Some(serde_json::json!(channels)),
            _ => None,
        });
        run_hook(&shared, &hook, arguments, present.context.clone()).await;
    }
}

#[derive(serde::Serialize)]
struct Connected<'a> {
    socket_id: &'a str,
}

/// Membership of a socket in the hub, ended on drop.
struct Present<'a> {
    id: &'a str,
    outbox: &'a Arc<Outbox>,
    shared: &'a Shared,
    /// The handshake request.
    request: HttpRequest,
    context: Table,
    /// Channels of the socket at its removal.
    channels: OnceLock<BTreeSet<String>>,
}

impl Present<'_> {
    /// Removes the socket from the hub and returns its channels.
    fn leave(&self) -> &BTreeSet<String> {
        self.channels
            .get_or_init(|| self.shared.hub.remove(self.id))
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl SocketListener for Present<'_> {
    async fn met(&self) -> Result<(), String> {
        for hook in self.shared.hooks(Occasion::Connect) {
            let values = |name: &str| opened_with(&self.request, name);
            let arguments = hook_arguments(&hook, Some(self.id), values);
            let context = self.context.clone();
            if let Some(fault) = run_hook(self.shared, &hook, arguments, context).await {
                tracing::debug!(
                    "{} refused a socket: {}: {fault}",
                    hook.name(),
                    fault.exc_type
                );
                return Err(fault.to_string());
            }
        }
        Ok(())
    }

    async fn message(&self, body: Bytes) {
        handle(self, &body).await;
    }

    async fn left(&self) {
        self.leave();
    }
}

/// Runs the worker of a request.
async fn handle(socket: &Present<'_>, message: &[u8]) {
    let Present {
        id, outbox, shared, ..
    } = *socket;
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
    // A task of the container: it completes even if the socket disconnects.
    let context = socket.context.clone();
    let mut worker = container.spawn_worker(&method, arguments, context, move |outcome| {
        std::future::ready(reply.send(outcome))
    });
    drop(container);
    worker.wait().await;
}

/// The reply to a request. Dropping it unsent reports the stopping container.
struct Reply {
    outbox: Arc<Outbox>,
    correlation_id: String,
    sent: bool,
}

impl Reply {
    /// Sends the outcome of the worker, and returns the outcome sent, for providers.
    fn send(mut self, outcome: Outcome) -> Outcome {
        let outcome = outcome.and_then(|value| {
            // A panic while serializing the result is the outcome of the call, like a panic of the
            // method.
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

    /// Replies to a request without a worker.
    fn refuse(mut self, fault: &Fault) {
        self.push(frames::error(fault, &self.correlation_id));
    }

    fn push(&mut self, text: String) {
        self.sent = true;
        // Ignored if the socket is gone.
        self.outbox.push(text.into());
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            let fault = Fault::nameko("ContainerBeingKilled", "the service is stopping");
            self.push(frames::error(&fault, &self.correlation_id));
        }
    }
}

/// Runs a connect or disconnect hook, and returns its error.
async fn run_hook(
    shared: &Shared,
    method: &MethodHandle,
    arguments: Result<Arguments>,
    context: Table,
) -> Option<Fault> {
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return Some(Fault::of(&error)),
    };
    let container = shared.container.upgrade()?;
    let (failed, failure) = tokio::sync::oneshot::channel();
    let mut worker = container.spawn_worker(method, arguments, context, |outcome| {
        // Fails if the socket's task was dropped.
        let _ = failed.send(outcome.as_ref().err().cloned());
        std::future::ready(outcome)
    });
    drop(container);
    worker.wait().await;
    failure.await.ok().flatten()
}

/// Returns the arguments of a hook: the socket's id if there is one, and optional values by name.
pub(super) fn hook_arguments(
    method: &MethodHandle,
    socket_id: Option<&str>,
    known: impl Fn(&str) -> Option<serde_json::Value>,
) -> Result<Arguments> {
    let mut arguments = Arguments::new();
    if let Some(id) = socket_id {
        arguments = arguments.arg(id)?;
    }
    let named = method
        .params()
        .iter()
        .skip(usize::from(socket_id.is_some()));
    named
        .filter_map(|parameter| known(parameter.name).map(|value| (parameter.name, value)))
        .try_fold(arguments, |arguments, (name, value)| {
            arguments.kwarg(name, value)
        })
}

/// Returns a value of the handshake request for a hook.
pub(super) fn opened_with(request: &HttpRequest, name: &str) -> Option<serde_json::Value> {
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
