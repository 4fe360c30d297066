//! The dependency through which a service dispatches events.

use std::{
    fmt,
    future::IntoFuture,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    amqp::Publish,
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
/// Declares the exchange `{service}.events` when the service starts, unless the config key `DECLARE_EVENT_EXCHANGES` is
/// false. Options given here hold for every event; an event can have its own.
#[must_use = "a provider stands in `#[dependency(...)]`"]
pub struct EventDispatcher {
    options: Options,
    ready: OnceLock<(Arc<ConfiguredPublisher>, Arc<str>)>,
}

impl EventDispatcher {
    /// A dispatcher with no options.
    #[expect(clippy::new_without_default, reason = "providers are made with `new`")]
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
                worker: Some(ctx.clone()),
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

/// Dispatches events of one service, on behalf of a worker: they carry its context data.
///
/// Cheap to clone, usable from many tasks at once.
#[derive(Clone)]
pub struct Dispatcher(Destination);

impl Dispatcher {
    /// Dispatches an event, once the result is awaited: `event_type` says what has happened, `data` is what handlers get.
    /// It has been dispatched when the broker has taken charge of it; whether anybody handles it is not known.
    ///
    /// # Errors
    /// When awaited: [`Error::Publish`] when the broker refuses the event or cannot be reached, [`Error::Serialization`]
    /// when the data has no form in the event's format.
    pub fn dispatch<'a, T: Serialize + ?Sized>(
        &self,
        event_type: impl Into<String>,
        data: &'a T,
    ) -> Dispatching<'a, T> {
        Dispatching::new(self.0.clone(), event_type.into(), data, Options::default())
    }

    /// A stand-in for tests: `dispatched` is given the type and the data of each event.
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

/// An event about to be dispatched, once it is awaited. Its options win over the dispatcher's.
#[must_use = "an event is dispatched when this is awaited"]
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
        // The data is written before anything is awaited.
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
