//! The entrypoint `#[event_handler]`: events of a service.

use std::fmt;

use crate::{
    amqp::{Queue, Table},
    config::Config,
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::Entrypoint,
    messaging::{Deliveries, OnError, takes_one_argument},
    protocol, queue_arguments,
};

/// The selection of handlers for an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HandlerType {
    /// One instance of each service: the instances share a queue per method.
    #[default]
    ServicePool,
    /// One handler in total: all handlers of all services share a queue.
    Singleton,
    /// Every instance of every service: each instance has its own queue.
    Broadcast,
}

/// The identifier of an instance in its queue names, for [`HandlerType::Broadcast`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BroadcastIdentifier {
    /// A string, such as the host name.
    Text(String),
    /// The string value of a config key.
    Config(String),
}

impl BroadcastIdentifier {
    /// Uses the string value of a config key: `BroadcastIdentifier::config("SERVICE_IDENTIFIER")`.
    pub fn config(key: impl Into<String>) -> Self {
        Self::Config(key.into())
    }

    fn read(&self, config: &Config) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Config(key) => match config.str(key)? {
                Some(text) => Ok(text.to_owned()),
                None => Err(config
                    .invalid(
                        key,
                        "is not set; it must identify this instance of the service",
                    )
                    .into()),
            },
        }
    }
}

impl<T: Into<String>> From<T> for BroadcastIdentifier {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// Calls a method with the data of each event of a type.
///
/// The event type may be a pattern of a topic exchange: `*` matches one word, `#` any number of
/// words, as in `order.*`. An event is acknowledged after the method returns, also with an error,
/// unless [`requeue_on_error`](Self::requeue_on_error) or
/// [`reject_on_error`](Self::reject_on_error) is set. An event that does not deserialize into the
/// argument is logged and rejected without requeueing.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Cache;
///
/// #[service("cache")]
/// impl Cache {
///     #[event_handler("shop", "price.*", handler_type = broadcast, reliable_delivery = false)]
///     async fn forget(&self, article: String) -> Result<()> {
///         println!("{article} has a new price");
///         Ok(())
///     }
/// }
/// ```
pub struct EventHandler {
    source: String,
    event_type: String,
    handler_type: HandlerType,
    reliable_delivery: bool,
    requeue_on_error: bool,
    reject_on_error: bool,
    identifier: Option<BroadcastIdentifier>,
    arguments: Table,
    prefetch: Option<u16>,
    deliveries: Deliveries,
}

impl EventHandler {
    /// Creates a handler of events of the type `event_type` from the service `source`. Default: one
    /// instance per service, reliable delivery.
    pub fn new(source: impl Into<String>, event_type: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            event_type: event_type.into(),
            handler_type: HandlerType::default(),
            reliable_delivery: true,
            requeue_on_error: false,
            reject_on_error: false,
            identifier: None,
            arguments: Table::new(),
            prefetch: None,
            deliveries: Deliveries::default(),
        }
    }

    /// Sets the handler type. Default: [`HandlerType::ServicePool`].
    #[must_use]
    pub fn handler_type(mut self, handler_type: HandlerType) -> Self {
        self.handler_type = handler_type;
        self
    }

    /// Sets whether events are kept while no handler runs. Default: `true`. If `false`, the queue
    /// and its events are deleted with its last consumer.
    #[must_use]
    pub fn reliable_delivery(mut self, reliable: bool) -> Self {
        self.reliable_delivery = reliable;
        self
    }

    /// Requeues an event if the method fails, after a pause that grows with each of its failures
    /// from 0.1 to 30 seconds. A delivery limit ends the retries, see
    /// [`queue_arguments`](Self::queue_arguments).
    #[must_use]
    pub fn requeue_on_error(mut self, requeue: bool) -> Self {
        self.requeue_on_error = requeue;
        self
    }

    /// Rejects an event if the method fails. The queue dead-letters it, or drops it without a
    /// dead-letter exchange.
    #[must_use]
    pub fn reject_on_error(mut self, reject: bool) -> Self {
        self.reject_on_error = reject;
        self
    }

    /// Sets the identifier of this instance, for [`HandlerType::Broadcast`]. Default: a new one at
    /// each start, which excludes reliable delivery: the queues of stopped instances would remain
    /// forever.
    #[must_use]
    pub fn broadcast_identifier(mut self, identifier: impl Into<BroadcastIdentifier>) -> Self {
        self.identifier = Some(identifier.into());
        self
    }

    /// Adds arguments for the queue. They override those under `events` in the config key
    /// `queue_arguments`.
    ///
    /// Configured arguments only apply to reliable delivery: a quorum queue, for example, cannot be
    /// auto-deleted.
    #[must_use]
    pub fn queue_arguments(mut self, arguments: impl Into<Table>) -> Self {
        self.arguments.extend(arguments.into());
        self
    }

    /// Sets the maximum number of unacknowledged events; 0 is unlimited. Default: the container's
    /// `prefetch_count`.
    #[must_use]
    pub fn prefetch_count(mut self, events: u16) -> Self {
        self.prefetch = Some(events);
        self
    }

    /// Returns the queue of the handler.
    fn queue(&self, config: &Config, service: &str, method: &str) -> Result<Queue> {
        if self.identifier.is_some() && self.handler_type != HandlerType::Broadcast {
            return Err(Error::Declaration(
                "a `broadcast_identifier` requires `handler_type = broadcast`".to_owned(),
            ));
        }
        let by_method = Some((service, method));
        let (by_method, identifier) = match self.handler_type {
            HandlerType::ServicePool => (by_method, None),
            HandlerType::Singleton => (None, None),
            HandlerType::Broadcast => (by_method, Some(self.instance(config)?)),
        };
        let name = protocol::event_queue_name(
            &self.source,
            &self.event_type,
            by_method,
            identifier.as_deref(),
        );
        let configured = match self.reliable_delivery {
            true => queue_arguments::configured(config, "events")?,
            false => Table::new(),
        };
        // Exclusive queues are deleted with their connection.
        let exclusive = self.handler_type == HandlerType::Broadcast && !self.reliable_delivery;
        Ok(Queue::new(name)
            .bind(
                protocol::event_exchange(config, &self.source),
                self.event_type.as_str(),
            )
            .auto_delete(!self.reliable_delivery)
            .exclusive(exclusive)
            .arguments(configured)
            .arguments(self.arguments.clone()))
    }

    /// Returns the identifier of this instance.
    fn instance(&self, config: &Config) -> Result<String> {
        match &self.identifier {
            Some(identifier) => identifier.read(config),
            None if self.reliable_delivery => Err(Error::Declaration(
                "broadcasts cannot be delivered reliably with a broadcast identifier that is new at each start: give the \
                 handler a `broadcast_identifier` that stays, or set `reliable_delivery = false`"
                    .to_owned(),
            )),
            None => Ok(protocol::broadcast_identifier()),
        }
    }
}

impl Entrypoint for EventHandler {
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        OnError::of(self.requeue_on_error, self.reject_on_error)?;
        takes_one_argument(method)?;
        self.queue(container.config(), container.service_name(), method.name())
            .map(drop)
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let queue = self.queue(container.config(), container.service_name(), method.name())?;
        let on_error = OnError::of(self.requeue_on_error, self.reject_on_error)?;
        self.deliveries
            .setup(container, method, queue, self.prefetch, on_error)
    }

    async fn stop(&self) {
        self.deliveries.stop().await;
    }

    fn describe(&self) -> String {
        format!("event {} of {}", self.event_type, self.source)
    }
}

impl fmt::Debug for EventHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHandler")
            .field("source", &self.source)
            .field("event_type", &self.event_type)
            .field("handler_type", &self.handler_type)
            .field("reliable_delivery", &self.reliable_delivery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: Nameko 2.14.1, `nameko/events.py`.
    #[test]
    fn queues_are_namekos() {
        let new = || EventHandler::new("shop", "paid");
        let broadcast = || new().handler_type(HandlerType::Broadcast);
        let config = Config::default().with("ME", "host-2");
        for (handler, name, exclusive, auto_delete) in [
            (new(), "evt-shop-paid--mail.send", false, false),
            (
                new().reliable_delivery(false),
                "evt-shop-paid--mail.send",
                false,
                true,
            ),
            (
                new().handler_type(HandlerType::Singleton),
                "evt-shop-paid",
                false,
                false,
            ),
            (
                broadcast().broadcast_identifier("host-1"),
                "evt-shop-paid--mail.send-host-1",
                false,
                false,
            ),
            (
                broadcast()
                    .broadcast_identifier(BroadcastIdentifier::config("ME"))
                    .reliable_delivery(false),
                "evt-shop-paid--mail.send-host-2",
                true,
                true,
            ),
        ] {
            let queue = handler.queue(&config, "mail", "send").expect("a queue");
            assert_eq!(queue.name, name);
            assert_eq!(
                (queue.durable, queue.exclusive, queue.auto_delete),
                (true, exclusive, auto_delete),
                "{name}"
            );
            let binding = &queue.bindings[0];
            assert_eq!(
                (binding.exchange.name.as_str(), binding.routing_key.as_str()),
                ("shop.events", "paid")
            );
        }
    }

    #[test]
    fn unreliable_broadcasts_get_a_new_identifier() {
        let config = Config::default();
        let new = || EventHandler::new("shop", "paid").handler_type(HandlerType::Broadcast);
        let name = |handler: EventHandler| {
            handler
                .queue(&config, "mail", "send")
                .map(|queue| queue.name)
        };
        let one = name(new().reliable_delivery(false)).expect("a queue");
        let other = name(new().reliable_delivery(false)).expect("a queue");
        assert_ne!(one, other);
        assert_eq!(one.len(), "evt-shop-paid--mail.send-".len() + 32);

        let error = name(new()).expect_err("no stable identifier");
        assert!(
            error.to_string().contains("`broadcast_identifier`"),
            "{error}"
        );
        let missing = new().broadcast_identifier(BroadcastIdentifier::config("ME"));
        let error = name(missing).expect_err("no such key");
        assert!(error.to_string().starts_with("ME is not set"), "{error}");
    }

    #[test]
    fn an_identifier_is_for_broadcasts_only() {
        let handler = EventHandler::new("shop", "paid").broadcast_identifier("host-1");
        let error = handler.queue(&Config::default(), "mail", "send");
        let error = error.expect_err("no broadcast").to_string();
        assert!(error.contains("handler_type = broadcast"), "{error}");
    }

    #[test]
    fn exchanges_are_declared_as_configured() {
        let exchange = |key: &str, value: serde_json::Value| {
            protocol::event_exchange(&Config::default().with(key, value), "shop")
        };
        assert!(exchange("AUTO_DELETE_EVENT_EXCHANGES", true.into()).auto_delete);
        assert!(exchange("AUTO_DELETE_EVENT_EXCHANGES", 1.into()).auto_delete);
        assert!(!exchange("AUTO_DELETE_EVENT_EXCHANGES", serde_json::Value::Null).auto_delete);
        assert!(exchange("DECLARE_EVENT_EXCHANGES", false.into()).no_declare);
        assert!(!exchange("DECLARE_EVENT_EXCHANGES", serde_json::Value::Null).no_declare);
        assert!(!exchange("other", 1.into()).no_declare);
    }

    #[test]
    fn arguments_of_a_handler_override_configured_ones() {
        let config = Config::default().with(
            "queue_arguments",
            serde_json::json!({"events": {"x-max-length": 10, "x-queue-type": "quorum"}}),
        );
        let new = || EventHandler::new("shop", "paid").queue_arguments([("x-max-length", 5)]);
        let queue = new().queue(&config, "mail", "send").expect("a queue");
        assert_eq!(
            queue.arguments,
            Table::new()
                .with("x-max-length", 5)
                .with("x-queue-type", "quorum")
        );
        let volatile = new().reliable_delivery(false);
        let queue = volatile.queue(&config, "mail", "send").expect("a queue");
        assert_eq!(queue.arguments, Table::new().with("x-max-length", 5));
    }
}
