//! The consuming connection of a container.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    amqp::{self, Consumers, Observer, Queue, Subscription, SubscriptionId},
    container::Container,
    error::{Error, Result},
    extension::SharedExtension,
    sync::lock,
};

/// The consumers of a container, on one connection and one channel that recover automatically.
///
/// Shared by all extensions of a container. Built-in entrypoints consume through it, and custom
/// entrypoints can do the same:
///
/// ```
/// use std::sync::{Arc, OnceLock};
///
/// use nameko::{
///     Container, Entrypoint, MethodHandle, QueueConsumer, Result,
///     amqp::{Queue, Subscription, SubscriptionId},
/// };
///
/// /// Discards all messages.
/// struct Heartbeats {
///     ready: OnceLock<(Arc<QueueConsumer>, SubscriptionId)>,
/// }
///
/// impl Entrypoint for Heartbeats {
///     async fn setup(&self, container: &Container, _method: MethodHandle) -> Result<()> {
///         let consumer = QueueConsumer::of(container)?;
///         let subscription = consumer.add(Subscription {
///             queue: Queue::new("heartbeats"),
///             prefetch: Some(container.prefetch_count()),
///             sink: Arc::new(|delivery| delivery.acker.ack()),
///             on_recovered: None,
///         })?;
///         let _ = self.ready.set((consumer, subscription));
///         Ok(())
///     }
///
///     async fn stop(&self) {
///         if let Some((consumer, subscription)) = self.ready.get() {
///             consumer.cancel(*subscription).await;
///         }
///     }
///
///     fn describe(&self) -> String {
///         "heartbeats".to_owned()
///     }
/// }
/// ```
pub struct QueueConsumer {
    pub(crate) consumers: Consumers,
    service: String,
    link: Arc<Link>,
    /// Consumed queues, to detect conflicting declarations of the same queue.
    queues: Mutex<Vec<(SubscriptionId, Queue)>>,
}

impl QueueConsumer {
    /// Returns the queue consumer of a container. To be called in `setup`; connects after the start
    /// of all extensions.
    ///
    /// # Errors
    /// [`Error::Config`] if the broker settings are invalid. Otherwise as for
    /// [`Container::shared`].
    pub fn of(container: &Container) -> Result<Arc<Self>> {
        container.shared(|container| {
            let service = container.service_name().to_owned();
            let link = Arc::new(Link {
                service: service.clone(),
                up: AtomicBool::new(false),
                refused: watch::Sender::new(None),
                observers: Mutex::default(),
            });
            let mut options = container.config().connect_options()?;
            options.connection_name = Some(service.clone());
            Ok(Self {
                consumers: Consumers::new(options, link.clone()),
                service,
                link,
                queues: Mutex::default(),
            })
        })
    }

    /// Adds a subscription. The queue and its bindings are declared at each connect. The sink is
    /// called on the I/O task for each delivery and must not block. Each delivery must be
    /// acknowledged or rejected once.
    ///
    /// # Errors
    /// [`Error::Declaration`] if this container already consumes a queue of the same name with
    /// another declaration.
    pub fn add(&self, subscription: Subscription) -> Result<SubscriptionId> {
        let queue = subscription.queue.clone();
        let mut queues = lock(&self.queues);
        // Queues named by the broker are distinct, and only declarations can conflict.
        let declared =
            |queue: &Queue| !queue.name.is_empty() && !queue.no_declare && !queue.passive;
        let namesake = queues
            .iter()
            .find(|(_, other)| other.name == queue.name && declared(other));
        if let Some((_, other)) = namesake.filter(|_| declared(&queue))
            && let Some(difference) = difference(other, &queue)
        {
            return Err(Error::Declaration(format!(
                "conflicting declarations of the queue `{}`: {difference}",
                queue.name
            )));
        }
        let id = self.consumers.add(subscription);
        queues.push((id, queue));
        Ok(id)
    }

    /// Cancels a subscription without deleting the queue. The sink is not called after this
    /// returns.
    pub async fn cancel(&self, id: SubscriptionId) {
        lock(&self.queues).retain(|(other, _)| *other != id);
        self.consumers.cancel(id).await;
    }

    /// Returns `true` if all subscriptions are currently active.
    pub fn is_connected(&self) -> bool {
        self.consumers.is_connected()
    }

    /// Notifies `observer` of connection events from now on. They are logged in any case.
    pub fn watch(&self, observer: Arc<dyn Observer>) {
        lock(&self.link.observers).push(observer);
    }
}

impl SharedExtension for QueueConsumer {
    /// Waits for the broker. Fails if the broker rejects a declaration, since a retry would not
    /// help.
    async fn start(&self) -> Result<()> {
        let mut refused = self.link.refused.subscribe();
        tokio::select! {
            started = self.consumers.start() => Ok(started?),
            refused = refused.wait_for(Option::is_some) => match refused.as_deref() {
                Ok(Some(error)) => Err(error.clone().into()),
                // Unreachable: `self.link` owns the sender.
                _ => Err(amqp::Error::Stopped.into()),
            },
        }
    }

    async fn stop(&self) {
        self.consumers.stop().await;
    }

    fn kill(&self) {
        self.consumers.kill();
    }
}

impl fmt::Debug for QueueConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueConsumer")
            .field("service", &self.service)
            .field("consumers", &self.consumers)
            .finish_non_exhaustive()
    }
}

/// Returns `true` if a retry would fail with the same error. A missing exchange (404) may still be
/// declared by its owner, and an exclusive queue (405) may belong to a dead connection. Source of
/// the codes: AMQP 0-9-1.
fn is_final(error: &amqp::Error) -> bool {
    match error {
        amqp::Error::ChannelClosed { code, .. } => !matches!(code, 404 | 405),
        // An unknown exchange type or feature.
        amqp::Error::ConnectionClosed { code, .. } => matches!(code, 503 | 540),
        amqp::Error::Unsendable { .. } => true,
        _ => false,
    }
}

/// Describes the first difference between two declarations of a queue.
fn difference(one: &Queue, other: &Queue) -> Option<String> {
    let flags = [
        ("durable", one.durable, other.durable),
        ("exclusive", one.exclusive, other.exclusive),
        ("auto_delete", one.auto_delete, other.auto_delete),
    ];
    if let Some((name, one, other)) = flags.into_iter().find(|(_, one, other)| one != other) {
        return Some(format!("{name} {one} and {other}"));
    }
    let names = one.arguments.iter().chain(other.arguments.iter());
    names
        .map(|(name, _)| (name, one.arguments.get(name), other.arguments.get(name)))
        .find(|(_, one, other)| one != other)
        .map(|(name, one, other)| {
            let shown =
                |value: Option<&amqp::Value>| value.map_or("none".to_owned(), ToString::to_string);
            format!("`{name}` {} and {}", shown(one), shown(other))
        })
}

/// Logs connection events and forwards them to the observers.
struct Link {
    service: String,
    /// Whether it was ever connected.
    up: AtomicBool,
    /// Set if the broker rejects a declaration before the first successful connection; fails the
    /// start.
    refused: watch::Sender<Option<amqp::Error>>,
    observers: Mutex<Vec<Arc<dyn Observer>>>,
}

impl Link {
    fn each(&self, notify: impl Fn(&dyn Observer)) {
        let observers = lock(&self.observers).clone();
        observers.iter().for_each(|observer| notify(&**observer));
    }
}

impl Observer for Link {
    fn connection_error(&self, error: &amqp::Error, retry_in: Duration) {
        if !self.up.load(Ordering::Relaxed) && is_final(error) {
            self.refused.send_replace(Some(error.clone()));
            return;
        }
        tracing::warn!(
            service = self.service,
            "error connecting to broker: {error}; retrying in {retry_in:.1?}"
        );
        self.each(|observer| observer.connection_error(error, retry_in));
    }

    fn connected(&self, reconnect: bool) {
        self.up.store(true, Ordering::Relaxed);
        if reconnect {
            tracing::info!(service = self.service, "reconnected to broker");
        }
        self.each(|observer| observer.connected(reconnect));
    }

    fn lost(&self, error: &amqp::Error) {
        tracing::warn!(
            service = self.service,
            "connection to broker lost, reconnecting: {error}"
        );
        self.each(|observer| observer.lost(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_between_declarations_are_described() {
        let plain = Queue::new("q");
        assert_eq!(difference(&plain, &plain), None);
        let priority = plain.clone().argument("x-max-priority", 10);
        assert_eq!(
            difference(&plain, &priority).as_deref(),
            Some("`x-max-priority` none and 10")
        );
        assert_eq!(
            difference(&priority, &plain.clone().exclusive(true)).as_deref(),
            Some("exclusive false and true")
        );
        let quorum = plain.quorum();
        assert_eq!(
            difference(&quorum, &priority).as_deref(),
            Some("`x-queue-type` \"quorum\" and none")
        );
    }
}
