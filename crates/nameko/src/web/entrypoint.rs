//! The entrypoint `#[http]`.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::Stream;
use http::StatusCode;
use tokio::sync::oneshot;

use super::{
    error::Error,
    handler::Handler,
    raw::RawRequest,
    response::{ByteStream, Response},
    server::{self, WebServer},
    settings::Limits,
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::{Container, MethodHandle, WeakContainer},
    error::{self, Result},
    extension::Entrypoint,
    protocol::Fault,
    reply::Outcome,
};

/// Runs a method for HTTP requests: `#[http(GET, "/orders/{id}")]`.
#[derive(Debug)]
pub struct Http {
    pub(super) methods: String,
    pub(super) path: String,
    server: OnceLock<Arc<WebServer>>,
}

impl Http {
    /// Creates the entrypoint of a method.
    ///
    /// `methods` is a comma-separated list, such as `GET` or `GET,POST`. In the path, `{name}` is a
    /// parameter; a final `{*name}` matches the rest of the path.
    pub fn new(methods: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            methods: methods.into(),
            path: path.into(),
            server: OnceLock::new(),
        }
    }
}

impl Entrypoint for Http {
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        let owner = format!("{}.{}", container.service_name(), method.name());
        server::parse(&self.methods, &self.path, &owner).map(|_| ())
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let server = WebServer::of(container)?;
        let endpoint = Endpoint {
            container: container.downgrade(),
            limits: server.limits(),
            method: method.clone(),
        };
        server.route(&self.methods, &self.path, method.name(), endpoint)?;
        let _ = self.server.set(server);
        Ok(())
    }

    async fn stop(&self) {
        if let Some(server) = self.server.get() {
            server.withdraw().await;
        }
    }

    fn describe(&self) -> String {
        format!("http {} {}", self.methods, self.path)
    }
}

/// The handler of one method.
struct Endpoint {
    container: WeakContainer,
    limits: Limits,
    method: MethodHandle,
}

impl Handler for Endpoint {
    async fn handle(&self, request: RawRequest) -> Response {
        let limits = &self.limits;
        let request = match request.read(limits.max_body, limits.body_timeout).await {
            Ok(request) => request,
            Err(error) => return error.into_response(),
        };
        let Some(container) = self.container.upgrade() else {
            return Error::stopping().into_response();
        };
        // The worker is a task of the container: it completes even if the client disconnects.
        let (reply, response) = oneshot::channel();
        container.spawn(work(
            container.downgrade(),
            self.method.clone(),
            Arguments::from_origin(request),
            // As in Nameko, request headers do not become context data: they are untrusted.
            Table::default(),
            *limits,
            reply,
        ));
        drop(container);
        match response.await {
            Ok(response) => response,
            // The container is stopping or was killed.
            Err(_) => Error::stopping().into_response(),
        }
    }
}

pub(super) async fn work(
    container: WeakContainer,
    method: MethodHandle,
    arguments: Arguments,
    context_data: Table,
    limits: Limits,
    reply: oneshot::Sender<Response>,
) {
    let Some(container) = container.upgrade() else {
        return;
    };
    let mut reply = Some(reply);
    let answered = async {
        let send = |outcome: Outcome| {
            let (outcome, response) = respond(&container, &method, outcome);
            if let Some(reply) = reply.take() {
                // Fails if the client disconnected.
                let _ = reply.send(response);
            }
            std::future::ready(outcome)
        };
        container
            .run_worker(&method, arguments, context_data, send)
            .await
    };
    let ended = match limits.worker_timeout {
        Some(limit) => tokio::time::timeout(limit, answered).await,
        None => Ok(answered.await),
    };
    let response = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error::Error::ContainerStopping(_))) => Error::stopping().into_response(),
        Ok(Err(error)) => {
            tracing::debug!("no worker for {}: {error}", method.name());
            refusal(&Fault::of(&error), &method)
        }
        Err(_) if reply.is_none() => return,
        Err(_) => {
            let limit = limits.worker_timeout.unwrap_or_default();
            tracing::error!(
                service = container.service_name(),
                method = method.name(),
                "no response within {limit:?} (WEB_SERVER_TIMEOUT): dropping the worker"
            );
            let text = format!("no response within {limit:?}");
            Error::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    };
    if let Some(reply) = reply {
        // Fails if the client disconnected.
        let _ = reply.send(response);
    }
}

/// Returns the response to send, and the outcome for providers.
fn respond(container: &Container, method: &MethodHandle, outcome: Outcome) -> (Outcome, Response) {
    let value = match outcome {
        Ok(value) => value,
        Err(fault) => {
            let response = refusal(&fault, method);
            return (Err(fault), response);
        }
    };
    let description = value.describe();
    match value.into_any().downcast::<Response>() {
        Ok(response) => {
            let shown = response.shown();
            let response = response.map_stream(|stream| owned(container, stream));
            (Ok(Box::new(shown)), response)
        }
        // A `Method` implemented without the macro may return another type.
        Err(_) => {
            let fault =
                Fault::unserializable(&format!("{description}, which is not an HTTP response"));
            let response = refusal(&fault, method);
            (Err(fault), response)
        }
    }
}

fn refusal(fault: &Fault, method: &MethodHandle) -> Response {
    Response::of_fault(fault, method.expects(fault))
}

/// Ties a stream to the container: a stop waits for it, a kill ends it.
fn owned(container: &Container, stream: ByteStream) -> ByteStream {
    let (mut work, alive) = oneshot::channel::<()>();
    container.spawn(async move { work.closed().await });
    Box::pin(Owned { stream, alive })
}

struct Owned {
    stream: ByteStream,
    /// Closed when the container's task ends; nothing is sent.
    alive: oneshot::Receiver<()>,
}

impl Stream for Owned {
    type Item = <ByteStream as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if Pin::new(&mut self.alive).poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the service stopped before the end".into())));
        }
        self.stream.as_mut().poll_next(cx)
    }
}
