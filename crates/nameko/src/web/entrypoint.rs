//! The entrypoint `#[http]`.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{Method, StatusCode};
use tokio::sync::oneshot;

use super::{
    body_reader::BodyReader,
    body_stream::BodyStream,
    error::Error,
    handler::Handler,
    raw::RawRequest,
    request::Request,
    response::{ByteStream, Response},
    server::{self, WebServer},
    settings::Limits,
    socket::Wire,
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::{Container, MethodHandle, WeakContainer},
    error::{self, Result},
    extension::Entrypoint,
    protocol::Fault,
    reply::{Outcome, Reply},
    tasks::TaskHandle,
};

/// Runs a method for HTTP requests: `#[http(GET, "/orders/{id}")]`.
#[derive(Debug)]
pub struct Http {
    pub(super) methods: String,
    pub(super) path: String,
    options: Options,
    server: OnceLock<Arc<WebServer>>,
}

/// The settings of one method.
#[derive(Debug, Default)]
struct Options {
    cancel_on_disconnect: bool,
    /// In bytes.
    max_body: Option<usize>,
    /// In seconds.
    timeout: Option<f64>,
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
            options: Options::default(),
            server: OnceLock::new(),
        }
    }

    /// Drops the worker when the client disconnects. By default, it runs to its end. A client that
    /// shuts down only its sending side counts as disconnected too.
    #[must_use]
    pub fn cancel_on_disconnect(mut self, cancel: bool) -> Self {
        self.options.cancel_on_disconnect = cancel;
        self
    }

    /// Sets the maximum size of a request body in bytes, instead of `WEB_SERVER_MAX_BODY`.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.options.max_body = Some(bytes);
        self
    }

    /// Sets the time limit of a worker in seconds, instead of `WEB_SERVER_TIMEOUT`. 0 disables it.
    #[must_use]
    pub fn timeout(mut self, seconds: impl Into<f64>) -> Self {
        self.options.timeout = Some(seconds.into());
        self
    }

    /// Returns the limits of the method, which extend those of the server.
    pub(super) fn limits(&self, server: Limits) -> Result<Limits> {
        let mut limits = server;
        if let Some(max) = self.options.max_body {
            limits.max_body = max;
        }
        if let Some(seconds) = self.options.timeout {
            let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| {
                let text =
                    format!("`timeout` must be a number of seconds, 0 or more, not {seconds}");
                error::Error::Declaration(text)
            })?;
            limits.worker_timeout = (!timeout.is_zero()).then_some(timeout);
        }
        Ok(limits)
    }
}

impl Entrypoint for Http {
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        let owner = format!("{}.{}", container.service_name(), method.name());
        server::parse(&self.methods, &self.path, &owner)?;
        let mut streams = method.extractors.list.iter().filter(|param| param.streams);
        if let (Some(one), Some(other)) = (streams.next(), streams.next()) {
            return Err(error::Error::Declaration(format!(
                "`{}` and `{}` both stream the body; only one parameter can",
                one.name, other.name
            )));
        }
        self.limits(Limits::default()).map(|_| ())
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let server = WebServer::of(container)?;
        let endpoint = Endpoint {
            container: container.downgrade(),
            limits: self.limits(server.limits())?,
            cancel_on_disconnect: self.options.cancel_on_disconnect,
            streams: method.extractors.list.iter().any(|param| param.streams),
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
    cancel_on_disconnect: bool,
    /// Whether a parameter streams the body.
    streams: bool,
    method: MethodHandle,
}

impl Handler for Endpoint {
    async fn handle(&self, request: RawRequest) -> Response {
        let wire = self.cancel_on_disconnect.then(|| request.wire().clone());
        let (request, body) = match self.receive(request) {
            Ok(received) => received,
            Err(refusal) => return refusal,
        };
        if let Some(body) = body {
            // Boxed, since most requests have no body.
            match Box::pin(body.read()).await {
                Ok(body) => request.set_body(body),
                Err(error) => return error.into_response(),
            }
        }
        let Some(container) = self.container.upgrade() else {
            return Error::stopping().into_response();
        };
        // The worker is a task of the container: it completes even if the client disconnects.
        let (reply, response) = oneshot::channel();
        let task = container.poll_or_spawn(work(
            container.downgrade(),
            self.method.clone(),
            Arguments::from_origin(request),
            // As in Nameko, request headers do not become context data: they are untrusted.
            Table::default(),
            self.limits,
            reply,
        ));
        drop(container);
        let answered = async {
            // An error: the container is stopping or was killed.
            let stopping = |_| Error::stopping().into_response();
            response.await.unwrap_or_else(stopping)
        };
        match wire {
            None => answered.await,
            Some(wire) => Box::pin(self.until_gone(answered, &wire, task)).await,
        }
    }
}

impl Endpoint {
    /// Returns the request, and the body if it is to be read first. Extracts the arguments that do
    /// not need the body before that is read: a client that is refused need not send it. If an
    /// argument needs the worker, that does both.
    #[expect(
        clippy::result_large_err,
        reason = "a response, which the caller returns as it is"
    )]
    fn receive(&self, request: RawRequest) -> Result<(Request, Option<BodyReader>), Response> {
        let Limits {
            max_body,
            body_timeout,
            parts,
            ..
        } = self.limits;
        let has_body = request.has_body();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let in_worker = self.method.extractors.need_worker();
        let (mut request, body) = request.split(max_body, body_timeout);
        if !in_worker && (has_body || !is_read) {
            for param in self.method.extractors.list {
                let early = || (param.early)(&mut request, param.name);
                // A panic fails the request, like one of the method.
                let extracted = catch_unwind(AssertUnwindSafe(early)).unwrap_or_else(|panic| {
                    Err(error::Error::raised(Fault::panic(panic.as_ref())))
                });
                extracted.map_err(|error| {
                    tracing::debug!("no worker for {}: {error}", self.method.name());
                    refusal(&Fault::of(&error), &self.method)
                })?;
            }
        }
        if in_worker && !self.streams {
            // Also without a body, so that an argument from it comes after the others.
            request.set_unread(body);
        } else if !has_body {
            request.set_body(Bytes::new());
        } else if self.streams {
            request.set_stream(BodyStream::of(body, parts));
        } else {
            return Ok((request, Some(body)));
        }
        Ok((request, None))
    }

    /// Waits for the response. Aborts the worker if the client disconnects before.
    async fn until_gone(
        &self,
        answered: impl Future<Output = Response>,
        wire: &Wire,
        task: TaskHandle,
    ) -> Response {
        /// Aborts the worker if the connection is dropped.
        struct AbortOnDrop(Option<TaskHandle>);

        impl Drop for AbortOnDrop {
            fn drop(&mut self) {
                if let Some(task) = &self.0 {
                    task.abort();
                }
            }
        }

        let mut guard = AbortOnDrop(Some(task));
        tokio::select! {
            biased;
            response = answered => {
                guard.0 = None;
                response
            }
            () = wire.gone() => {
                tracing::info!(
                    method = self.method.name(),
                    "the client has disconnected: dropping the worker"
                );
                Response::empty(client_closed_request())
            }
        }
    }
}

/// Returns the status of a response that nobody receives, for the logs of layers. Source: nginx.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
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
    let ended = {
        // Pinned where it is created, so that this future keeps only one place for it.
        let mut answered = pin!(async {
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
        });
        match limits.worker_timeout {
            Some(limit) => tokio::time::timeout(limit, answered.as_mut()).await,
            None => Ok(answered.await),
        }
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
                "no response within {limit:?} (WEB_SERVER_TIMEOUT, or `timeout` of the method): dropping the worker"
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
    let refused = |fault: Fault| {
        let response = refusal(&fault, method);
        (Err(fault), response)
    };
    let value = match outcome {
        Ok(value) => value,
        Err(fault) => return refused(fault),
    };
    let is_response = (&*value as &dyn Any).is::<Response>();
    let description = (!is_response).then(|| value.describe());
    match value.into_any().downcast::<Response>() {
        Ok(response) => {
            // Copied only for providers and observers.
            let shown: Box<dyn Reply> = match container.observes_outcomes() {
                true => Box::new(response.shown()),
                false => Box::new(()),
            };
            let response = response.map_stream(|stream| owned(container, stream));
            (Ok(shown), response)
        }
        // A `Method` implemented without the macro may return another type.
        Err(_) => {
            let description = description.unwrap_or_default();
            let text = format!("{description}, which is not an HTTP response");
            refused(Fault::unserializable(&text))
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
