//! Everything that a container consumes.

use std::{sync::Arc, time::Duration};

use super::{delivery::Delivery, error::Error, options::ConnectOptions, topology::Queue};

/// Where deliveries go. Called on the I/O task: it must not block.
pub type Sink = Arc<dyn Fn(Delivery) + Send + Sync>;

/// One connection with one channel for any number of consumers, kept alive.
#[derive(Clone)]
pub struct Consumers;

/// A queue to consume.
#[derive(Clone)]
pub struct Subscription {
    /// The queue, declared with its bindings at each connect.
    pub queue: Queue,
    /// How many unacknowledged deliveries it may hold, `None` for any number.
    pub prefetch: Option<u16>,
    /// Where deliveries go.
    pub sink: Sink,
    /// Called after it is consumed again on a new connection, or after the broker had ended it: whether the queue was still there.
    pub on_recovered: Option<Arc<dyn Fn(bool) + Send + Sync>>,
}

/// Names a subscription of a [`Consumers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(u64);

/// Is told how the connection fares. Methods must not block. By default they log.
pub trait Observer: Send + Sync {
    /// An attempt to connect, or to set up the consumers, failed.
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        let _ = (error, retry_in);
    }

    /// Connected, every queue declared and consumed.
    fn connected(&self, reconnect: bool) {
        let _ = reconnect;
    }

    /// The connection was lost.
    fn lost(&self, error: &Error) {
        let _ = error;
    }
}

impl Observer for () {}

impl Consumers {
    /// Consumers of the broker at `options`; connects at `start`.
    pub fn new(options: ConnectOptions, observer: Arc<dyn Observer>) -> Self {
        let _ = (options, observer);
        Self
    }

    /// Adds a subscription, before the start or while running.
    pub fn add(&self, subscription: Subscription) -> SubscriptionId {
        drop(subscription);
        SubscriptionId(0)
    }

    /// Connects; resolves when every queue is declared and consumed.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn start(&self) -> Result<(), Error> {
        Err(Error::Stopped)
    }

    /// Ends a subscription; the queue is left.
    pub async fn cancel(&self, id: SubscriptionId) {
        let _ = id;
    }

    /// Closes channel and connection, within a second.
    pub async fn stop(&self) {}

    /// Drops the connection at once: unacknowledged deliveries go back to their queues.
    pub fn kill(&self) {}

    /// Whether everything is consumed right now.
    pub fn is_connected(&self) -> bool {
        false
    }
}
