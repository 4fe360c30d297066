//! Delivery of messages to methods, and their acknowledgement.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock, Weak};

use super::raw::RawMessage;
use super::requeue::RequeuePause;
use crate::{
    amqp::{Acker, Delivery, Queue, Subscription, SubscriptionId},
    arguments::Arguments,
    container::{Container, MethodHandle, WeakContainer},
    error::{Error, Result},
    queue_consumer::QueueConsumer,
    reply::Outcome,
    serialization::Codec,
    worker,
};

/// Settlement of a message whose method failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnError {
    /// Acknowledge, which drops the message.
    Acknowledge,
    /// Reject, which dead-letters or drops the message.
    Reject,
    /// Requeue for redelivery, after a pause.
    Requeue,
}

impl OnError {
    /// Creates it from the options of an entrypoint.
    pub(crate) fn of(requeue: bool, reject: bool) -> Result<Self> {
        match (requeue, reject) {
            (false, false) => Ok(Self::Acknowledge),
            (false, true) => Ok(Self::Reject),
            (true, false) => Ok(Self::Requeue),
            (true, true) => Err(Error::Declaration(
                "`requeue_on_error` and `reject_on_error` exclude each other".to_owned(),
            )),
        }
    }
}

/// A consumer that calls one method for each message of a queue.
#[derive(Default)]
pub(crate) struct Deliveries {
    consuming: OnceLock<(Arc<QueueConsumer>, SubscriptionId, Arc<Handler>)>,
}

impl Deliveries {
    /// Registers a consumer of `queue` for the start of the container.
    pub(crate) fn setup(
        &self,
        container: &Container,
        method: MethodHandle,
        queue: Queue,
        prefetch: Option<u16>,
        on_error: OnError,
    ) -> Result<()> {
        let handler = Arc::new(Handler {
            container: container.downgrade(),
            method,
            codec: Codec::of(container.config())?,
            queue: queue.name.clone(),
            on_error,
        });
        let consumer = QueueConsumer::of(container)?;
        let sink = Arc::downgrade(&handler);
        let subscription = consumer.add(Subscription {
            queue,
            prefetch: Some(prefetch.unwrap_or(container.prefetch_count())),
            sink: Arc::new(move |delivery| Handler::accept(&sink, delivery)),
            on_recovered: None,
        })?;
        let _ = self.consuming.set((consumer, subscription, handler));
        Ok(())
    }

    /// Cancels the consumer. Received messages are still handled.
    pub(crate) async fn stop(&self) {
        if let Some((consumer, subscription, _)) = self.consuming.get() {
            consumer.cancel(*subscription).await;
        }
    }
}

/// Checks that a method takes one argument, the body.
pub(crate) fn takes_one_argument(method: &MethodHandle) -> Result<()> {
    let required = method
        .params()
        .iter()
        .filter(|parameter| !parameter.optional)
        .count();
    if required <= 1 && !method.params().is_empty() {
        return Ok(());
    }
    Err(Error::Declaration(format!(
        "the method takes {} arguments, but is called with one: the body of a message",
        method.params().len(),
    )))
}

/// Runs the method of an entrypoint for each message.
struct Handler {
    container: WeakContainer,
    method: MethodHandle,
    codec: Arc<Codec>,
    queue: String,
    on_error: OnError,
}

impl Handler {
    /// Accepts a message from the I/O task.
    fn accept(handler: &Weak<Self>, delivery: Delivery) {
        let Some((handler, container)) = handler
            .upgrade()
            .and_then(|handler| handler.container.upgrade().map(|c| (handler, c)))
        else {
            return delivery.acker.reject(true);
        };
        let (owner, method) = (container.clone(), handler.method.clone());
        owner.spawn_message(&method, async move {
            handler.handle(&container, delivery).await;
        });
    }

    async fn handle(&self, container: &Container, mut delivery: Delivery) {
        let pause = match self.on_error {
            OnError::Requeue => Some(RequeuePause::of(&self.queue, &delivery)),
            OnError::Acknowledge | OnError::Reject => None,
        };
        let body = std::mem::take(&mut delivery.body);
        let bytes = body.len();
        let arguments = if self.method.takes_raw_message() {
            Arguments::from_origin(RawMessage::new(&delivery, body))
        } else {
            match self.codec.decode(&delivery.properties, &body) {
                Ok(payload) => {
                    // Frees the body before the worker runs.
                    drop(body);
                    Arguments::new().payload(payload)
                }
                Err(error) => return self.refuse(container, &delivery, bytes, &error.into()),
            }
        };
        let context_data = worker::context_data(std::mem::take(&mut delivery.properties.headers));
        let acker = &delivery.acker;
        let settle = |outcome: Outcome| async move {
            match (&outcome, self.on_error, pause) {
                (Err(_), OnError::Requeue, Some(pause)) => self.requeue(container, pause, acker),
                (Err(_), OnError::Reject, _) => acker.reject(false),
                _ => acker.ack(),
            }
            outcome
        };
        match container
            .run_worker(&self.method, arguments, context_data, settle)
            .await
        {
            Ok(()) => {}
            Err(error @ Error::ContainerStopping(_)) => {
                tracing::debug!("{error}; requeueing a message of {}", self.queue);
                acker.reject(true);
            }
            Err(error) => self.refuse(container, &delivery, bytes, &error),
        }
    }

    /// Requeues a message after a pause, in a task that does not delay a stop.
    fn requeue(&self, container: &Container, pause: RequeuePause, acker: &Acker) {
        let (queue, acker) = (self.queue.clone(), acker.clone());
        container.spawn_managed("requeue", async move {
            pause.requeue(&queue, acker).await;
            Ok::<(), Infallible>(())
        });
    }

    /// Rejects a message that does not deserialize. Requeueing would redeliver it forever; a
    /// dead-letter exchange receives it, else it is dropped.
    fn refuse(&self, container: &Container, delivery: &Delivery, bytes: usize, error: &Error) {
        tracing::error!(
            service = container.service_name(),
            method = self.method.name(),
            queue = self.queue,
            exchange = &*delivery.exchange,
            routing_key = delivery.routing_key,
            content_type = delivery
                .properties
                .content_type
                .as_deref()
                .unwrap_or("none"),
            bytes,
            "rejecting an unreadable message: {error}",
        );
        delivery.acker.reject(false);
    }
}
