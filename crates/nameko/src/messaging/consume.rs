//! The entrypoint `#[consume]`.

use std::fmt;

use super::delivery::{Deliveries, OnError, takes_one_argument};
use crate::{
    amqp::Queue,
    container::{Container, MethodHandle},
    error::Result,
    extension::Entrypoint,
};

/// Calls a method with each message of a queue: with the deserialized body, or with the whole
/// message as a [`RawMessage`](super::RawMessage).
///
/// Declares the queue with its exchanges and bindings at the start and after each reconnect. A
/// message is acknowledged after the method returns, also with an error, unless
/// [`requeue_on_error`](Self::requeue_on_error) or [`reject_on_error`](Self::reject_on_error) is
/// set. A message that does not deserialize into the argument is logged and rejected without
/// requeueing.
///
/// ```
/// use nameko::{amqp::{Exchange, Queue}, prelude::*};
///
/// #[derive(serde::Deserialize)]
/// struct Order { id: u32 }
///
/// #[derive(Dependencies)]
/// struct Warehouse;
///
/// #[service("warehouse")]
/// impl Warehouse {
///     #[consume(
///         Queue::new("orders")
///             .bind(Exchange::topic("shop"), "order.*")
///             .dead_letter("failed", "orders"),
///         reject_on_error,
///         prefetch_count = 1
///     )]
///     async fn pack(&self, order: Order) -> Result<()> {
///         println!("packing {}", order.id);
///         Ok(())
///     }
/// }
/// ```
pub struct Consume {
    queue: Queue,
    requeue_on_error: bool,
    reject_on_error: bool,
    prefetch: Option<u16>,
    deliveries: Deliveries,
}

impl Consume {
    /// Creates a consumer of `queue`. A name is a durable queue without bindings.
    pub fn new(queue: impl Into<Queue>) -> Self {
        Self {
            queue: queue.into(),
            requeue_on_error: false,
            reject_on_error: false,
            prefetch: None,
            deliveries: Deliveries::default(),
        }
    }

    /// Requeues a message if the method fails, after a pause that grows with each of its failures
    /// from 0.1 to 30 seconds. It then goes to this or another instance. A [delivery
    /// limit](Queue::delivery_limit) and a [dead-letter exchange](Queue::dead_letter) end the
    /// retries.
    #[must_use]
    pub fn requeue_on_error(mut self, requeue: bool) -> Self {
        self.requeue_on_error = requeue;
        self
    }

    /// Rejects a message if the method fails. The queue dead-letters it, or drops it without a
    /// [dead-letter exchange](Queue::dead_letter).
    #[must_use]
    pub fn reject_on_error(mut self, reject: bool) -> Self {
        self.reject_on_error = reject;
        self
    }

    /// Sets the maximum number of unacknowledged messages; 0 is unlimited. Default: the container's
    /// `prefetch_count`.
    #[must_use]
    pub fn prefetch_count(mut self, messages: u16) -> Self {
        self.prefetch = Some(messages);
        self
    }
}

impl Entrypoint for Consume {
    fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
        OnError::of(self.requeue_on_error, self.reject_on_error)?;
        takes_one_argument(method)
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let on_error = OnError::of(self.requeue_on_error, self.reject_on_error)?;
        let queue = self.queue.clone();
        self.deliveries
            .setup(container, method, queue, self.prefetch, on_error)
    }

    async fn stop(&self) {
        self.deliveries.stop().await;
    }

    fn describe(&self) -> String {
        format!("consume {}", self.queue.name)
    }
}

impl fmt::Debug for Consume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("queue", &self.queue)
            .field("requeue_on_error", &self.requeue_on_error)
            .field("reject_on_error", &self.reject_on_error)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}
