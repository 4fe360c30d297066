//! The one connection on which a container consumes.

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

/// Everything that one container consumes, over one connection and one channel that are kept alive.
///
/// Shared by all extensions of a container; the entrypoints of this crate consume through it, and so can yours:
///
/// ```
/// use std::sync::{Arc, OnceLock};
///
/// use nameko::{
///     Container, Entrypoint, MethodHandle, QueueConsumer, Result,
///     amqp::{Queue, Subscription, SubscriptionId},
/// };
///
/// /// Counts messages, whatever they are.
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
    /// What is consumed, so that two entrypoints cannot want one queue to be two things.
    queues: Mutex<Vec<(SubscriptionId, Queue)>>,
}

impl QueueConsumer {
    /// The queue consumer of `container`, for use in `setup`. It connects when every extension has started.
    ///
    /// # Errors
    /// [`Error::Config`] when the configuration does not tell how to connect, [`Error::ContainerStopping`].
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

    /// Consumes a queue: it is declared with its bindings at each connect. The sink is called on the I/O task, for each
    /// delivery; it must not block, and each delivery must be acknowledged by somebody, once.
    ///
    /// # Errors
    /// [`Error::Declaration`] when this container already consumes a queue of that name that is declared otherwise.
    pub fn add(&self, subscription: Subscription) -> Result<SubscriptionId> {
        let queue = subscription.queue.clone();
        let mut queues = lock(&self.queues);
        // The broker names a nameless one, and looks at nothing of what is not declared.
        let declared = |it: &Queue| !it.name.is_empty() && !it.no_declare && !it.passive;
        let namesake = queues
            .iter()
            .find(|(_, it)| it.name == queue.name && declared(it));
        if let Some((_, other)) = namesake.filter(|_| declared(&queue))
            && let Some(difference) = difference(other, &queue)
        {
            return Err(Error::Declaration(format!(
                "the queue `{}` is declared twice, with {difference}: declare it once, or alike",
                queue.name
            )));
        }
        let id = self.consumers.add(subscription);
        queues.push((id, queue));
        Ok(id)
    }

    /// Ends a subscription; the queue is left. After this no delivery reaches the sink any more.
    pub async fn cancel(&self, id: SubscriptionId) {
        lock(&self.queues).retain(|(other, _)| *other != id);
        self.consumers.cancel(id).await;
    }

    /// Whether everything is consumed right now.
    pub fn is_connected(&self) -> bool {
        self.consumers.is_connected()
    }

    /// Tells `observer` how the connection fares, from now on. It is logged already.
    pub fn watch(&self, observer: Arc<dyn Observer>) {
        lock(&self.link.observers).push(observer);
    }
}

impl SharedExtension for QueueConsumer {
    /// Waits for the broker. A declaration that the broker refuses is an error: waiting would not help.
    async fn start(&self) -> Result<()> {
        let mut refused = self.link.refused.subscribe();
        tokio::select! {
            started = self.consumers.start() => Ok(started?),
            refused = refused.wait_for(Option::is_some) => match refused.as_deref() {
                Ok(Some(error)) => Err(error.clone().into()),
                // The sender lives in `self.link`.
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

/// Whether the broker would say the same again. Not when an exchange is missing (404), since who owns it may yet declare it,
/// nor when a queue is another connection's (405), since that may be a dead one's. Codes: AMQP 0-9-1.
fn is_final(error: &amqp::Error) -> bool {
    match error {
        amqp::Error::ChannelClosed { code, .. } => !matches!(code, 404 | 405),
        // An exchange of a kind, or something else, that the broker does not know.
        amqp::Error::ConnectionClosed { code, .. } => matches!(code, 503 | 540),
        amqp::Error::Unsendable { .. } => true,
        _ => false,
    }
}

/// In what two declarations of one queue differ.
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
                |it: Option<&amqp::Value>| it.map_or("none".to_owned(), ToString::to_string);
            format!("`{name}` {} and {}", shown(one), shown(other))
        })
}

/// Says in the log how the connection fares, and tells those who watch.
struct Link {
    service: String,
    /// It was connected before.
    up: AtomicBool,
    /// Set when the broker refuses a declaration before anything is consumed: the start has failed.
    refused: watch::Sender<Option<amqp::Error>>,
    observers: Mutex<Vec<Arc<dyn Observer>>>,
}

impl Link {
    fn each(&self, tell: impl Fn(&dyn Observer)) {
        let observers = lock(&self.observers).clone();
        observers.iter().for_each(|it| tell(&**it));
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
        self.each(|it| it.connection_error(error, retry_in));
    }

    fn connected(&self, reconnect: bool) {
        self.up.store(true, Ordering::Relaxed);
        if reconnect {
            tracing::info!(service = self.service, "connected to broker again");
        }
        self.each(|it| it.connected(reconnect));
    }

    fn lost(&self, error: &amqp::Error) {
        tracing::warn!(
            service = self.service,
            "connection to broker lost, trying to re-establish it: {error}"
        );
        self.each(|it| it.lost(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_one_name_differ_in_words() {
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
