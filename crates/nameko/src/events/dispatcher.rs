//! The dependency for dispatching events.

use std::{
    fmt,
    future::IntoFuture,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    amqp::{Publish, Value},
    caller::Caller,
    config::Config,
    container::Container,
    error::{Error, Result},
    extension::DependencyProvider,
    messaging::{Body, ConfiguredPublisher, Destination, Options, publish, publish_options},
    protocol,
    serialization::Codec,
    worker::WorkerContext,
};

/// Injects a [`Dispatcher`] of the service's events.
///
/// Declares the exchange `{service}.events` at the start, unless the config key
/// `DECLARE_EVENT_EXCHANGES` is false. Options apply to every event; an event can override them.
#[must_use = "a provider belongs into `#[dependency(...)]`"]
pub struct EventDispatcher {
    options: Options,
    ready: OnceLock<(Arc<ConfiguredPublisher>, Arc<str>)>,
}

impl EventDispatcher {
    /// Creates a provider without options.
    #[expect(
        clippy::new_without_default,
        reason = "providers are created with `new`"
    )]
    pub fn new() -> Self {
        Self {
            options: Options::default(),
            ready: OnceLock::new(),
        }
    }

    publish_options!();
}

impl DependencyProvider for EventDispatcher {
    type Dependency = Dispatcher;

    async fn setup(&self, container: &Container) -> Result<()> {
        let config = container.config();
        let exchange = protocol::event_exchange(config, container.service_name());
        let name = exchange.name.as_str().into();
        let publisher = ConfiguredPublisher::new(config, Some(exchange), self.options.clone())?;
        let _ = self.ready.set((Arc::new(publisher), name));
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        match self.ready.get() {
            Some((publisher, _)) => publisher.declare().await,
            None => Ok(()),
        }
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Dispatcher> {
        match self.ready.get() {
            Some((publisher, exchange)) => Ok(Dispatcher(Destination::Broker {
                publisher: publisher.clone(),
                exchange: exchange.clone(),
                caller: Caller::worker(ctx),
            })),
            None => Err(Error::ContainerStopping(ctx.service_name().to_owned())),
        }
    }
}

impl fmt::Debug for EventDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<EventDispatcher>")
    }
}

/// Dispatches events of the service with the context data of the worker.
///
/// Cheap to clone; supports concurrent use.
#[derive(Clone)]
pub struct Dispatcher(Destination);

impl Dispatcher {
    /// Dispatches an event with its data when awaited.
    ///
    /// Completes once the broker has confirmed the event, independently of handlers.
    ///
    /// # Errors
    /// When awaited: [`Error::Publish`] if the broker refuses the event or is unreachable;
    /// [`Error::Serialization`] if the format cannot represent the data.
    pub fn dispatch<'a, T: Serialize + ?Sized>(
        &self,
        event_type: impl Into<String>,
        data: &'a T,
    ) -> Dispatching<'a, T> {
        Dispatching::new(self.0.clone(), event_type.into(), data, Options::default())
    }

    /// Returns a copy whose events also carry this context data, as
    /// [`ServiceProxy::with_context`](crate::ServiceProxy::with_context).
    ///
    /// A value that cannot be a header fails them with [`Error::InvalidContext`].
    #[must_use]
    pub fn with_context(&self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self(self.0.with_context(key, value))
    }

    /// Creates a mock for tests: `dispatched` receives the type and the data of each event.
    ///
    /// ```
    /// # use nameko::Dispatcher;
    /// # async fn run() -> nameko::Result<()> {
    /// let events = Dispatcher::mock(|event_type, data| {
    ///     assert_eq!((event_type, data), ("order_paid", 17.into()));
    ///     Ok(())
    /// });
    /// events.dispatch("order_paid", &17).await
    /// # }
    /// ```
    pub fn mock(
        dispatched: impl Fn(&str, serde_json::Value) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Destination::Mock(Arc::new(move |message: Publish| {
            let codec = Codec::of(&Config::default())?;
            let data = codec.read_own(&message.properties, &message.body)?;
            dispatched(&message.routing_key, data.read()?)
        })))
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Dispatcher [{}]>", self.0)
    }
}

/// An event, dispatched when awaited. Its options override the dispatcher's.
#[must_use = "an event is only dispatched when awaited"]
pub struct Dispatching<'a, T: ?Sized> {
    destination: Destination,
    data: &'a T,
    options: Options,
}

impl<'a, T: ?Sized> Dispatching<'a, T> {
    pub(super) fn new(
        destination: Destination,
        event_type: String,
        data: &'a T,
        mut options: Options,
    ) -> Self {
        options.routing_key = Some(event_type);
        Self {
            destination,
            data,
            options,
        }
    }

    publish_options!();
}

impl<T: Serialize + ?Sized> IntoFuture for Dispatching<'_, T> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        // Serializes the data before the first await.
        publish(self.destination, Body::Value(self.data), self.options)
    }
}

impl<T: ?Sized> fmt::Debug for Dispatching<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatching")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
