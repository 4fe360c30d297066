//! The entrypoint `#[consume]`: messages of a queue.

use std::fmt;

use super::delivery::{Deliveries, OnError, takes_one_argument};
use crate::{
    amqp::Queue,
    container::{Container, MethodHandle},
    error::Result,
    extension::Entrypoint,
};

/// Calls a method with the body of each message of a queue; with all of the message, and its body not read, where the method takes a
/// [`RawMessage`](super::RawMessage).
///
/// The queue is declared with its exchanges and bindings when the service starts, and after each reconnect. The message is
/// acknowledged when the method has returned. One that raised is acknowledged too, and gone, unless
/// [`requeue_on_error`](Self::requeue_on_error) or [`reject_on_error`](Self::reject_on_error) says otherwise. A message that
/// cannot be read as the method's argument is logged and rejected, never put back.
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
///         Queue::new("orders").bind(Exchange::topic("shop"), "order.*").dead_letter("failed", "orders"),
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
    /// Consumes `queue`. A name alone is a durable queue without bindings.
    pub fn new(queue: impl Into<Queue>) -> Self {
        Self {
            queue: queue.into(),
            requeue_on_error: false,
            reject_on_error: false,
            prefetch: None,
            deliveries: Deliveries::default(),
        }
    }

    /// A message whose method failed goes back to the queue, which delivers it again at once, to this or another instance.
    /// If it fails each time it comes each time: give the queue a [limit](Queue::delivery_limit) and a
    /// [dead-letter exchange](Queue::dead_letter).
    #[must_use]
    pub fn requeue_on_error(mut self, requeue: bool) -> Self {
        self.requeue_on_error = requeue;
        self
    }

    /// A message whose method failed is rejected: the queue's [dead-letter exchange](Queue::dead_letter) gets it. Without
    /// one it is gone, as if acknowledged.
    #[must_use]
    pub fn reject_on_error(mut self, reject: bool) -> Self {
        self.reject_on_error = reject;
        self
    }

    /// How many messages are held unacknowledged, instead of the container's `prefetch_count`. 0 is no limit.
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
