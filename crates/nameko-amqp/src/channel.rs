//! A channel: declare, publish, consume.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, exchange, queue};
use tokio::sync::oneshot;

use crate::{
    channel_state::{ChannelState, Consumer, Reply},
    confirms::Outcome,
    connection::Connection,
    connection_state::ConnectionState,
    delivery::{ConsumerTag, Delivery},
    encode::{field_table, short_string},
    error::{Error, PublishError},
    message::Publish,
    table::Table,
    topology::{Exchange, Queue},
    unsent::Unsent,
};

/// A channel of a connection. Clones are the same channel; it is closed when the last one is dropped.
///
/// The broker closes a channel when something asked on it is wrong (no such exchange, another queue of that name, ...).
/// That call returns the broker's reason, every other one that waits on the channel too, and the channel is of no more use.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    state: Arc<ChannelState>,
    /// A channel keeps its connection.
    _connection: Connection,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.close();
    }
}

/// What the broker says of a queue that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDeclared {
    /// Its name, also when the broker chose it.
    pub name: String,
    /// How many messages are ready in it.
    pub messages: u32,
    /// How many consumers it has.
    pub consumers: u32,
}

impl Channel {
    /// Opens a channel of `connection`, whose state is `shared`.
    pub(crate) async fn open(
        connection: Connection,
        shared: &Arc<ConnectionState>,
    ) -> Result<Self, Error> {
        let state = shared.add_channel(|id| Arc::new(ChannelState::new(id, Arc::clone(shared))))?;
        // The handle is made before the wait: a caller who gives up closes the channel again.
        let channel = Self(Arc::new(Handle {
            state,
            _connection: connection,
        }));
        let open = channel::AMQPMethod::Open(channel::Open {});
        channel.done(AMQPClass::Channel(open), 11).await?;
        Ok(channel)
    }

    /// Declares an exchange, or checks it when it is passive. Does nothing for one that is not to be declared.
    ///
    /// # Errors
    ///
    /// Of every method here: the broker refused and closed the channel, the connection is gone, or a name is too long.
    pub async fn exchange_declare(&self, exchange: &Exchange) -> Result<(), Error> {
        if !exchange.is_declared() {
            return Ok(());
        }
        let declare = exchange::AMQPMethod::Declare(exchange::Declare {
            exchange: short_string("the exchange", &exchange.name)?,
            kind: short_string("the kind of the exchange", exchange.kind.as_str())?,
            passive: exchange.passive,
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            nowait: false,
            arguments: field_table(&exchange.arguments)?,
        });
        self.done(AMQPClass::Exchange(declare), 11).await
    }

    /// Deletes an exchange.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn exchange_delete(&self, name: &str) -> Result<(), Error> {
        let delete = exchange::AMQPMethod::Delete(exchange::Delete {
            exchange: short_string("the exchange", name)?,
            if_unused: false,
            nowait: false,
        });
        self.done(AMQPClass::Exchange(delete), 21).await
    }

    /// Declares a queue, or checks it when it is passive. Its bindings are left to [`queue_bind`](Self::queue_bind).
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_declare(&self, queue: &Queue) -> Result<QueueDeclared, Error> {
        let declare = queue::AMQPMethod::Declare(queue::Declare {
            queue: short_string("the queue", &queue.name)?,
            passive: queue.passive,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: queue.auto_delete,
            nowait: false,
            arguments: field_table(&queue.arguments)?,
        });
        match self.call(AMQPClass::Queue(declare), 11).await? {
            Reply::Declared {
                name,
                messages,
                consumers,
            } => Ok(QueueDeclared {
                name,
                messages,
                consumers,
            }),
            other => Err(self.surprised(&other)),
        }
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_bind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: &Table,
    ) -> Result<(), Error> {
        let bind = queue::AMQPMethod::Bind(queue::Bind {
            queue: short_string("the queue", queue)?,
            exchange: short_string("the exchange", exchange)?,
            routing_key: short_string("the routing key", routing_key)?,
            nowait: false,
            arguments: field_table(arguments)?,
        });
        self.done(AMQPClass::Queue(bind), 21).await
    }

    /// Takes a binding away.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_unbind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: &Table,
    ) -> Result<(), Error> {
        let unbind = queue::AMQPMethod::Unbind(queue::Unbind {
            queue: short_string("the queue", queue)?,
            exchange: short_string("the exchange", exchange)?,
            routing_key: short_string("the routing key", routing_key)?,
            arguments: field_table(arguments)?,
        });
        self.done(AMQPClass::Queue(unbind), 51).await
    }

    /// Drops the messages that are ready in a queue and says how many there were.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_purge(&self, queue: &str) -> Result<u32, Error> {
        let purge = queue::AMQPMethod::Purge(queue::Purge {
            queue: short_string("the queue", queue)?,
            nowait: false,
        });
        self.count(AMQPClass::Queue(purge), 31).await
    }

    /// Deletes a queue and says how many messages were in it. No error when there is none.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_delete(&self, queue: &str) -> Result<u32, Error> {
        let delete = queue::AMQPMethod::Delete(queue::Delete {
            queue: short_string("the queue", queue)?,
            if_unused: false,
            if_empty: false,
            nowait: false,
        });
        self.count(AMQPClass::Queue(delete), 41).await
    }

    /// Declares exchanges and queue of `queue` and binds it. Returns the queue's name and whether anything was declared.
    pub(crate) async fn declare_whole(&self, queue: &Queue) -> Result<String, Error> {
        if queue.no_declare {
            return Ok(queue.name.clone());
        }
        for binding in &queue.bindings {
            self.exchange_declare(&binding.exchange).await?;
        }
        let declared = self.queue_declare(queue).await?;
        for binding in &queue.bindings {
            // Every queue is bound to the default exchange, and to no other way.
            if !binding.exchange.name.is_empty() {
                self.queue_bind(
                    &declared.name,
                    &binding.exchange.name,
                    &binding.routing_key,
                    &binding.arguments,
                )
                .await?;
            }
        }
        Ok(declared.name)
    }

    /// How many unacknowledged deliveries each consumer made from now on may hold, 0 for any number.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn qos(&self, prefetch: u16) -> Result<(), Error> {
        let qos = basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch,
            global: false,
        });
        self.done(AMQPClass::Basic(qos), 11).await
    }

    /// Starts a consumer. `sink` is called on the I/O task and must not block; `on_cancel` is called there too, when the
    /// broker ends the consumer (its queue was deleted). Neither is called for a channel or connection that ends.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn consume(
        &self,
        queue: &str,
        sink: impl Fn(Delivery) + Send + Sync + 'static,
        on_cancel: impl FnOnce(ConsumerTag) + Send + 'static,
    ) -> Result<ConsumerTag, Error> {
        let state = &self.0.state;
        let queue = short_string("the queue", queue)?;
        let tag = state.add_consumer(Consumer {
            sink: Arc::new(sink),
            on_cancel: Box::new(on_cancel),
        })?;
        let consume = basic::AMQPMethod::Consume(basic::Consume {
            queue,
            consumer_tag: short_string("the consumer tag", &tag)?,
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Default::default(),
        });
        let consuming = self.done(AMQPClass::Basic(consume), 21).await;
        if consuming.is_err() {
            state.remove_consumer(&tag);
        }
        consuming.map(|()| tag)
    }

    /// Ends a consumer; the queue is left. Deliveries that come until the broker has ended it still reach its sink.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn cancel(&self, tag: &ConsumerTag) -> Result<(), Error> {
        let cancel = basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: short_string("the consumer tag", tag)?,
            nowait: false,
        });
        self.done(AMQPClass::Basic(cancel), 31).await
    }

    /// Fetches one message, if there is one. To be acknowledged as any other.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn get(&self, queue: &str) -> Result<Option<Delivery>, Error> {
        let get = basic::AMQPMethod::Get(basic::Get {
            queue: short_string("the queue", queue)?,
            no_ack: false,
        });
        match self.call(AMQPClass::Basic(get), 71).await? {
            Reply::Got(delivery) => Ok(delivery.map(|delivery| *delivery)),
            other => Err(self.surprised(&other)),
        }
    }

    /// Asks the broker to confirm each message published on this channel from now on.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn confirm_select(&self) -> Result<(), Error> {
        if self.0.state.confirms() {
            return Ok(());
        }
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        self.0
            .state
            .select_confirms(AMQPClass::Confirm(select))
            .await
    }

    /// Publishes, once there is room in the output. The result is a future of what becomes of the message; without
    /// [`confirm_select`](Self::confirm_select) it is ready at once.
    ///
    /// # Errors
    ///
    /// Channel or connection are gone, or the message cannot be sent over AMQP. Nothing was sent then.
    pub async fn publish<'a>(&self, message: &'a Publish) -> Result<Confirm<'a>, Error> {
        let state = &self.0.state;
        if state.connection.is_full() {
            state.connection.has_room().await;
        }
        Ok(Confirm {
            outcome: state.publish(message)?,
            message,
        })
    }

    /// See [`Publisher::put`](crate::publisher::Publisher::put).
    pub(crate) fn put<F>(&self, message: Publish, then: F) -> Result<Unsent, Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        let state = &self.0.state;
        if state.connection.is_full() {
            return Err(Box::new((message, then)));
        }
        state.put(message, then)?;
        Ok(Unsent(Arc::clone(&state.connection)))
    }

    /// Closes the channel.
    pub async fn close(&self) {
        if let Some(closing) = self.0.state.close() {
            // It is closed then, for whatever reason.
            let _ = self.0.state.answer(closing).await;
        }
    }

    /// Resolves when the channel or its connection ends, with the reason.
    pub async fn closed(&self) -> Error {
        self.0.state.ended().await
    }

    /// Whether it can still be used.
    pub fn is_open(&self) -> bool {
        self.0.state.is_open()
    }

    /// Whether no publish waits for its confirm.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.state.is_idle()
    }

    async fn call(&self, method: AMQPClass, answer: u16) -> Result<Reply, Error> {
        self.0.state.call(method, answer).await
    }

    async fn done(&self, method: AMQPClass, answer: u16) -> Result<(), Error> {
        self.call(method, answer).await.map(drop)
    }

    async fn count(&self, method: AMQPClass, answer: u16) -> Result<u32, Error> {
        match self.call(method, answer).await? {
            Reply::Count(count) => Ok(count),
            other => Err(self.surprised(&other)),
        }
    }

    fn surprised(&self, reply: &Reply) -> Error {
        Error::Protocol {
            peer: self.0.state.connection.peer.clone(),
            reason: format!("an answer of another kind: {reply:?}"),
        }
    }
}

/// What becomes of a published message, to be awaited.
///
/// Resolves with [`PublishError`] when the broker gave it back or refused it, or when the connection was lost before the
/// broker said anything.
#[derive(Debug)]
#[must_use = "a publish that is not awaited may have failed"]
pub struct Confirm<'a> {
    outcome: Option<oneshot::Receiver<Outcome>>,
    message: &'a Publish,
}

impl Future for Confirm<'_> {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(outcome) = &mut self.outcome else {
            return Poll::Ready(Ok(()));
        };
        let outcome = std::task::ready!(Pin::new(outcome).poll(context));
        Poll::Ready(match outcome {
            Ok(outcome) => outcome.of(self.message),
            // The sender is dropped unused only with the channel's state.
            Err(_) => Err(PublishError::Lost(Error::Stopped)),
        })
    }
}
