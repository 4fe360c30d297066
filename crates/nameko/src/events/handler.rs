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

/// Who handles an event, where several could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HandlerType {
    /// One instance of each service: each method has a queue, which the instances share.
    #[default]
    ServicePool,
    /// One handler of all, whatever its service: all share one queue.
    Singleton,
    /// Every instance of every service: each has a queue of its own.
    Broadcast,
}

/// What tells the instances of a service apart, for [`HandlerType::Broadcast`]: it stands in the names of their queues.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BroadcastIdentifier {
    /// A text: the name of the machine, for example.
    Text(String),
    /// The text under a key of the configuration.
    Config(String),
}

impl BroadcastIdentifier {
    /// The text under `key` of the configuration: `BroadcastIdentifier::config("SERVICE_IDENTIFIER")`.
    pub fn config(key: impl Into<String>) -> Self {
        Self::Config(key.into())
    }

    fn read(&self, config: &Config) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Config(key) => match config.str(key)? {
                Some(text) => Ok(text.to_owned()),
                None => Err(config
                    .invalid(key, "is not set; it tells the instances of a service apart")
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

/// Calls a method with the data of each event of a type that a service dispatches.
///
/// The event type may be a pattern: `order.*` and `order.#` match as in any topic exchange, a `*` for one word, a `#` for any
/// number of words. The event is acknowledged when the method has returned. One that raised is acknowledged too, and gone,
/// unless [`requeue_on_error`](Self::requeue_on_error) or [`reject_on_error`](Self::reject_on_error) says otherwise. An event
/// that cannot be read as the method's argument is logged and rejected, never put back.
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
    /// Handles events of the type `event_type` of the service `source`, once in each service, reliably.
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

    /// Who handles an event. [`HandlerType::ServicePool`] unless this says otherwise.
    #[must_use]
    pub fn handler_type(mut self, handler_type: HandlerType) -> Self {
        self.handler_type = handler_type;
        self
    }

    /// Whether events wait while nobody handles them. On unless this says otherwise; off, the queue goes with its last
    /// consumer, and what is in it.
    #[must_use]
    pub fn reliable_delivery(mut self, reliable: bool) -> Self {
        self.reliable_delivery = reliable;
        self
    }

    /// An event whose method failed goes back to the queue, which delivers it again at once. If it fails each time it comes
    /// each time: give the queue a delivery limit, see [`queue_arguments`](Self::queue_arguments).
    #[must_use]
    pub fn requeue_on_error(mut self, requeue: bool) -> Self {
        self.requeue_on_error = requeue;
        self
    }

    /// An event whose method failed is rejected: the queue's dead-letter exchange gets it. Without one it is gone, as if
    /// acknowledged.
    #[must_use]
    pub fn reject_on_error(mut self, reject: bool) -> Self {
        self.reject_on_error = reject;
        self
    }

    /// What tells this instance apart, for [`HandlerType::Broadcast`]. By default it is new at each start, which cannot be
    /// had together with reliable delivery: the queue of an instance that is gone would wait for ever.
    #[must_use]
    pub fn broadcast_identifier(mut self, identifier: impl Into<BroadcastIdentifier>) -> Self {
        self.identifier = Some(identifier.into());
        self
    }

    /// Arguments for the queue, besides those that the config key `queue_arguments` has under `events`; where both have
    /// one, this counts. Those of the configuration are for queues of reliable delivery only: a quorum queue, for one,
    /// cannot go with its consumer.
    #[must_use]
    pub fn queue_arguments(mut self, arguments: impl Into<Table>) -> Self {
        self.arguments.extend(arguments.into());
        self
    }

    /// How many events are held unacknowledged, instead of the container's `prefetch_count`. 0 is no limit.
    #[must_use]
    pub fn prefetch_count(mut self, events: u16) -> Self {
        self.prefetch = Some(events);
        self
    }

    /// The queue of the handler.
    fn queue(&self, config: &Config, service: &str, method: &str) -> Result<Queue> {
        if self.identifier.is_some() && self.handler_type != HandlerType::Broadcast {
            return Err(Error::Declaration(
                "a `broadcast_identifier` is for broadcasts: add `handler_type = broadcast`, or leave it out"
                    .to_owned(),
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
        // Exclusive queues go with their connection, whatever else is asked for.
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

    /// What tells this instance of the service apart.
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
    fn broadcasts_are_told_apart_anew_unless_they_wait() {
        let config = Config::default();
        let new = || EventHandler::new("shop", "paid").handler_type(HandlerType::Broadcast);
        let name = |handler: EventHandler| handler.queue(&config, "mail", "send").map(|it| it.name);
        let one = name(new().reliable_delivery(false)).expect("a queue");
        let other = name(new().reliable_delivery(false)).expect("a queue");
        assert_ne!(one, other);
        assert_eq!(one.len(), "evt-shop-paid--mail.send-".len() + 32);

        let error = name(new()).expect_err("no identifier that stays");
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
    fn exchanges_are_declared_as_the_configuration_says() {
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
    fn a_handlers_own_arguments_win_over_the_configurations() {
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
