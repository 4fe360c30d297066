//! The dependency for publishing messages.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Serialize;

use super::{
    builder::{Publishing, publish_options},
    destination::{ConfiguredPublisher, Destination},
    options::Options,
};
use crate::{
    amqp::{Exchange, Publish, Value},
    caller::Caller,
    container::Container,
    error::{Error, Result},
    extension::DependencyProvider,
    worker::WorkerContext,
};

/// Injects a [`MessagePublisher`].
///
/// Declares the exchange and the queues of [`declare`](Self::declare) at the start and on each new
/// connection. Options apply to every message; a message can override them.
///
/// ```
/// use std::time::Duration;
/// use nameko::{amqp::{Exchange, Queue}, messaging::{MessagePublisher, Publisher}, prelude::*};
///
/// # fn orders() -> Exchange { Exchange::topic("orders") }
/// #[derive(Dependencies)]
/// struct Shop {
///     #[dependency(
///         Publisher::new(orders())
///             .declare(Queue::new("paid").bind(orders(), "order.paid"))
///             .mandatory(true)
///     )]
///     orders: MessagePublisher,
/// }
///
/// #[service("shop")]
/// impl Shop {
///     #[rpc]
///     async fn pay(&self, order: u32) -> Result<()> {
///         let message = self.orders.publish(&order).routing_key("order.paid");
///         message.expiration(Duration::from_secs(60)).await
///     }
/// }
/// ```
#[must_use = "a provider belongs into `#[dependency(...)]`"]
pub struct Publisher {
    exchange: Exchange,
    options: Options,
    ready: OnceLock<Arc<ConfiguredPublisher>>,
}

impl Publisher {
    /// Creates a publisher to `exchange`.
    pub fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            options: Options::default(),
            ready: OnceLock::new(),
        }
    }

    /// Creates a publisher to the default exchange, where the routing key is the name of the queue.
    pub fn to_queues() -> Self {
        Self::new(Exchange::nameless())
    }

    /// Sets the default routing key of messages.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        self.options.routing_key = Some(key.into());
        self
    }

    publish_options!();
}

impl DependencyProvider for Publisher {
    type Dependency = MessagePublisher;

    async fn setup(&self, container: &Container) -> Result<()> {
        let publisher = ConfiguredPublisher::new(
            container.config(),
            Some(self.exchange.clone()),
            self.options.clone(),
        )?;
        let _ = self.ready.set(Arc::new(publisher));
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        match self.ready.get() {
            Some(publisher) => publisher.declare().await,
            None => Ok(()),
        }
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<MessagePublisher> {
        match self.ready.get() {
            Some(publisher) => Ok(MessagePublisher(Destination::Broker {
                publisher: publisher.clone(),
                exchange: self.exchange.name.as_str().into(),
                caller: Caller::worker(ctx),
            })),
            None => Err(Error::ContainerStopping(ctx.service_name().to_owned())),
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Publisher [{}]>", self.exchange.name)
    }
}

/// Publishes messages to an exchange with the context data of the worker.
///
/// Cheap to clone; supports concurrent use.
#[derive(Clone)]
pub struct MessagePublisher(Destination);

impl MessagePublisher {
    /// Publishes a value when awaited.
    ///
    /// ```no_run
    /// # use nameko::{Result, messaging::MessagePublisher};
    /// # async fn run(orders: MessagePublisher) -> Result<()> {
    /// orders.publish("hello").routing_key("greetings").priority(5).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When awaited: [`Error::Publish`] if a mandatory message is unroutable
    /// ([`PublishError::is_unroutable`](crate::amqp::PublishError::is_unroutable)), or the broker
    /// refuses it or is unreachable; [`Error::Serialization`] if the format cannot represent the
    /// value.
    pub fn publish<'a, T: Serialize + ?Sized>(&self, value: &'a T) -> Publishing<'a, T> {
        Publishing::value(self.0.clone(), value)
    }

    /// Returns a copy whose messages also carry this context data, as
    /// [`ServiceProxy::with_context`](crate::ServiceProxy::with_context).
    ///
    /// A value that cannot be a header fails them with [`Error::InvalidContext`].
    #[must_use]
    pub fn with_context(&self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self(self.0.with_context(key, value))
    }

    /// Publishes bytes unchanged when awaited. Default [`content_type`](Publishing::content_type):
    /// `application/data`.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn publish_bytes(&self, body: impl Into<Bytes>) -> Publishing<'static, ()> {
        Publishing::bytes(self.0.clone(), body.into())
    }

    /// Creates a mock for tests: `publish` receives each message instead of the broker.
    ///
    /// ```
    /// # use nameko::messaging::MessagePublisher;
    /// # async fn run() -> nameko::Result<()> {
    /// let orders = MessagePublisher::mock(|message| {
    ///     assert_eq!(&message.body[..], b"17");
    ///     Ok(())
    /// });
    /// orders.publish(&17).routing_key("order.paid").await
    /// # }
    /// ```
    pub fn mock(publish: impl Fn(Publish) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Destination::Mock(Arc::new(publish)))
    }
}

impl fmt::Debug for MessagePublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<MessagePublisher [{}]>", self.0)
    }
}
