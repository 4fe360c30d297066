//! Layers around the workers of a service, a container or a runner.

use std::{fmt, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value};

use crate::{
    container::MethodHandle,
    protocol::Fault,
    redaction::{self, BoundValues},
    reply::Outcome,
    worker::WorkerContext,
};

/// Code around the workers of every kind of entrypoint: authentication, rate limits, metrics, audit
/// logs.
///
/// A layer runs around the injection of the dependencies, the method, and the providers'
/// `before_reply`. It may answer without running the method, change the context data, map the
/// outcome, or measure the call. The reply is sent after the outermost layer has returned. A panic
/// of a layer is the outcome of the call for the layers around it.
///
/// Set layers for all services of a program with [`Services::layer`](crate::Services::layer), for a
/// container with [`ContainerBuilder::layer`](crate::ContainerBuilder::layer), and for a service
/// with `#[service("name", layers = [...])]`. They are nested in this order, and within each list
/// the first is the outermost. See [the guide](crate::guide::extensions) for more examples.
///
/// ```
/// use nameko::{Next, Outcome, WorkerCall, WorkerLayer, prelude::*};
///
/// /// Rejects calls without a known token in the context data.
/// struct RequireToken;
///
/// impl WorkerLayer for RequireToken {
///     async fn call(&self, call: WorkerCall<'_>, next: Next<'_>) -> Outcome {
///         let token = call.ctx().get("auth_token");
///         match token.as_ref().and_then(|token| token.as_str()) {
///             Some("secret") => next.run().await,
///             _ => Err(Error::raise("Unauthorized", "no valid token").into()),
///         }
///     }
/// }
///
/// #[derive(Dependencies)]
/// struct Accounts;
///
/// #[service("accounts", layers = [RequireToken])]
/// impl Accounts {
///     #[rpc]
///     async fn balance(&self, account: u64) -> Result<i64> {
///         Ok(account as i64 * 100)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer",
    label = "a layer must implement `WorkerLayer`"
)]
pub trait WorkerLayer: Send + Sync + 'static {
    /// Runs the call, usually with [`next.run()`](Next::run), and returns its outcome.
    ///
    /// If the future of `next` is dropped before its end, the worker is cancelled: `before_reply`
    /// of the providers does not run, and their teardown receives
    /// [`WorkerEnd::Cancelled`](crate::WorkerEnd::Cancelled).
    fn call(&self, call: WorkerCall<'_>, next: Next<'_>) -> impl Future<Output = Outcome> + Send;
}

/// Shares a layer, such as a counter that the program reads.
impl<L: WorkerLayer> WorkerLayer for Arc<L> {
    fn call(&self, call: WorkerCall<'_>, next: Next<'_>) -> impl Future<Output = Outcome> + Send {
        L::call(self, call, next)
    }
}

/// A type-erased [`WorkerLayer`].
pub(crate) trait DynLayer: Send + Sync {
    fn call<'a>(&'a self, call: WorkerCall<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome>;
}

impl<L: WorkerLayer> DynLayer for L {
    fn call<'a>(&'a self, call: WorkerCall<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(WorkerLayer::call(self, call, next))
    }
}

/// A list of layers, the outermost first.
#[derive(Clone, Default)]
pub struct Layers(pub(crate) Vec<Arc<dyn DynLayer>>);

impl Layers {
    /// Adds a layer inside the others.
    pub fn add(&mut self, layer: impl WorkerLayer) {
        self.0.push(Arc::new(layer));
    }

    /// Adds `inner` inside the others.
    pub(crate) fn extend(&mut self, inner: Self) {
        self.0.extend(inner.0);
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layers({})", self.0.len())
    }
}

/// The call of a worker, for layers.
#[derive(Clone, Copy)]
pub struct WorkerCall<'a> {
    pub(crate) ctx: &'a WorkerContext,
    pub(crate) method: &'a MethodHandle,
    pub(crate) entrypoint: &'a str,
    pub(crate) values: &'a BoundValues,
}

impl<'a> WorkerCall<'a> {
    /// Returns the context of the worker: its service, method, call ids, context data and
    /// configuration. Context data that a layer sets is visible to the layers inside, the providers
    /// and the method.
    pub fn ctx(&self) -> &'a WorkerContext {
        self.ctx
    }

    /// Returns the method.
    pub fn method(&self) -> &'a MethodHandle {
        self.method
    }

    /// Returns the description of the entrypoint: `rpc`, `http GET /orders`, `timer every 5s`.
    pub fn entrypoint(&self) -> &'a str {
        self.entrypoint
    }

    /// Returns the arguments by parameter name, with the method's `sensitive_arguments` redacted,
    /// for logs. Converts them at each call. Empty for methods that extract their parameters from
    /// an HTTP request or an undecoded message.
    pub fn arguments(&self) -> Map<String, Value> {
        redaction::redact_bound(self.values, self.method.sensitive())
    }
}

impl fmt::Debug for WorkerCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<WorkerCall [{} {}]>", self.entrypoint, self.ctx)
    }
}

/// The rest of a call: the layers inside and the method. Runs once.
#[must_use = "the method does not run without `run`"]
pub struct Next<'a> {
    layers: &'a [Arc<dyn DynLayer>],
    call: WorkerCall<'a>,
    method: Box<dyn FnOnce() -> BoxFuture<'a, Outcome> + Send + 'a>,
}

impl<'a> Next<'a> {
    pub(crate) fn new(
        layers: &'a [Arc<dyn DynLayer>],
        call: WorkerCall<'a>,
        method: impl FnOnce() -> BoxFuture<'a, Outcome> + Send + 'a,
    ) -> Self {
        Self {
            layers,
            call,
            method: Box::new(method),
        }
    }

    /// Runs the rest of the call and returns its outcome. A panic is an error of the class `Panic`.
    pub async fn run(self) -> Outcome {
        let Some((layer, inner)) = self.layers.split_first() else {
            return (self.method)().await;
        };
        let call = self.call;
        let next = Self {
            layers: inner,
            ..self
        };
        let layered = AssertUnwindSafe(async { layer.call(call, next).await });
        layered
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(Fault::panic(panic.as_ref())))
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("call", &self.call)
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}
