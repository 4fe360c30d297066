//! A channel of a connection.

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
    connection_handle::ConnectionHandle,
    delivery::{ConsumerTag, Delivery},
    encode::{field_table, short_string},
    error::{Error, PublishError},
    io_thread,
    message::Publish,
    table::Table,
    topology::{Exchange, Queue},
    unsent::Unsent,
};

/// A channel of a connection. Clones share the channel; it is closed with the last clone.
///
/// The broker answers an invalid request (a missing exchange, a queue with other arguments, ...) by
/// closing the channel. That request and all others in flight on the channel then fail with the
/// broker's reason, and so does every later one.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    state: Arc<ChannelState>,
    /// Keeps the connection open.
    _connection: Arc<ConnectionHandle>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.close();
    }
}

/// State of a declared queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDeclared {
    /// Name, which the broker generates for a queue declared as `""`.
    pub name: String,
    /// Number of messages ready for delivery.
    pub messages: u32,
    /// Number of consumers.
    pub consumers: u32,
}

impl Channel {
    pub(crate) async fn open(connection: Arc<ConnectionHandle>) -> Result<Self, Error> {
        let state = connection.channels.add(&connection.state)?;
        // Created before the wait: if the caller is cancelled, dropping it closes the channel.
        let channel = Self(Arc::new(Handle {
            state,
            _connection: connection,
        }));
        let open = channel::AMQPMethod::Open(channel::Open {});
        channel.call_unit(AMQPClass::Channel(open), 11).await?;
        Ok(channel)
    }

    /// Declares an exchange, or checks that it exists if it is passive. Does nothing for the
    /// default exchange and for one with `no_declare`.
    ///
    /// # Errors
    ///
    /// If the broker refuses, which closes the channel, if the channel or the connection is closed,
    /// or if a name is longer than 255 bytes. The same holds for all other requests.
    pub async fn exchange_declare(&self, exchange: &Exchange) -> Result<(), Error> {
        if !exchange.is_declarable() {
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
        self.call_unit(AMQPClass::Exchange(declare), 11).await
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
        self.call_unit(AMQPClass::Exchange(delete), 21).await
    }

    /// Declares a queue without its bindings, or checks that it exists if it is passive.
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
            other => Err(self.unexpected(&other)),
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
        self.call_unit(AMQPClass::Queue(bind), 21).await
    }

    /// Removes a binding.
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
        self.call_unit(AMQPClass::Queue(unbind), 51).await
    }

    /// Drops the messages that are ready in a queue and returns their number.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn queue_purge(&self, queue: &str) -> Result<u32, Error> {
        let purge = queue::AMQPMethod::Purge(queue::Purge {
            queue: short_string("the queue", queue)?,
            nowait: false,
        });
        self.call_count(AMQPClass::Queue(purge), 31).await
    }

    /// Deletes a queue and returns the number of messages in it. A missing queue is not an error.
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
        self.call_count(AMQPClass::Queue(delete), 41).await
    }

    /// Declares a queue with the exchanges it is bound to, and binds it. Returns the queue's name.
    pub(crate) async fn declare_with_bindings(&self, queue: &Queue) -> Result<String, Error> {
        if queue.no_declare {
            return Ok(queue.name.clone());
        }
        for binding in &queue.bindings {
            self.exchange_declare(&binding.exchange).await?;
        }
        let declared = self.queue_declare(queue).await?;
        for binding in &queue.bindings {
            // Every queue is bound to the default exchange, which accepts no other binding.
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

    /// Sets the prefetch count (`basic.qos`): the limit of unacknowledged deliveries for each
    /// consumer started after it, 0 for no limit.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn qos(&self, prefetch: u16) -> Result<(), Error> {
        let qos = basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch,
            global: false,
        });
        self.call_unit(AMQPClass::Basic(qos), 11).await
    }

    /// Starts a consumer and returns its tag.
    ///
    /// `sink` is called for each delivery, `on_cancel` if the broker cancels the consumer, for
    /// example because its queue was deleted. Both are called on the I/O task, where they must not
    /// block. Neither is called when the channel or the connection ends.
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
        let consuming = self.call_unit(AMQPClass::Basic(consume), 21).await;
        if consuming.is_err() {
            state.remove_consumer(&tag);
        }
        consuming.map(|()| tag)
    }

    /// Cancels a consumer and leaves its queue. Deliveries in flight still reach the sink.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn cancel(&self, tag: &ConsumerTag) -> Result<(), Error> {
        let cancel = basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: short_string("the consumer tag", tag)?,
            nowait: false,
        });
        self.call_unit(AMQPClass::Basic(cancel), 31).await
    }

    /// Fetches one message (`basic.get`), `None` if the queue is empty. It has to be acknowledged.
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
            other => Err(self.unexpected(&other)),
        }
    }

    /// Enables publisher confirms (`confirm.select`) for the messages published after it.
    ///
    /// # Errors
    ///
    /// See [`exchange_declare`](Self::exchange_declare).
    pub async fn confirm_select(&self) -> Result<(), Error> {
        if self.0.state.is_confirming() {
            return Ok(());
        }
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        self.0
            .state
            .select_confirms(AMQPClass::Confirm(select))
            .await
    }

    /// Publishes a message, after waiting while more than a mebibyte is unsent on the connection.
    ///
    /// The returned future resolves with the broker's confirm, and at once without
    /// [`confirm_select`](Self::confirm_select).
    ///
    /// # Errors
    ///
    /// If the channel or the connection is closed, or AMQP cannot carry the message. Nothing is
    /// sent then.
    pub async fn publish<'a>(&self, message: &'a Publish) -> Result<Confirm<'a>, Error> {
        let state = &self.0.state;
        if state.connection().is_full() {
            state.connection().wait_for_capacity().await;
        }
        Ok(Confirm {
            outcome: state.publish(message)?,
            message,
        })
    }

    /// Encodes a message without flushing it. `callback` is called on the I/O task with the
    /// outcome.
    ///
    /// # Errors
    ///
    /// If the message cannot be encoded now; gives both arguments back.
    pub(crate) fn try_publish<F>(
        &self,
        message: Publish,
        callback: F,
    ) -> Result<Unsent, Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        let state = &self.0.state;
        if state.connection().is_full() {
            return Err(Box::new((message, callback)));
        }
        state.try_publish(message, callback)?;
        Ok(Unsent::new(Arc::clone(state.connection())))
    }

    /// Closes the channel and waits for the broker's answer.
    pub async fn close(&self) {
        if let Some(closing) = self.0.state.close() {
            // Either result means that the channel is closed.
            let _ = self.0.state.wait_for_reply(closing).await;
        }
    }

    /// Waits for the end of the channel or its connection and returns the error that caused it.
    pub async fn closed(&self) -> Error {
        self.0.state.closed().await
    }

    /// Returns whether the channel can be used.
    pub fn is_open(&self) -> bool {
        self.0.state.writer.is_open()
    }

    /// Returns whether no publish waits for its confirm.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.state.is_idle()
    }

    /// Sends `method` and waits for the reply with method id `reply_method`.
    async fn call(&self, method: AMQPClass, reply_method: u16) -> Result<Reply, Error> {
        self.0.state.call(method, reply_method).await
    }

    /// Like [`call`](Self::call), for a reply without content.
    async fn call_unit(&self, method: AMQPClass, reply_method: u16) -> Result<(), Error> {
        self.call(method, reply_method).await.map(drop)
    }

    /// Like [`call`](Self::call), for a reply with a number of messages.
    async fn call_count(&self, method: AMQPClass, reply_method: u16) -> Result<u32, Error> {
        match self.call(method, reply_method).await? {
            Reply::Count(count) => Ok(count),
            other => Err(self.unexpected(&other)),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        Error::Protocol {
            peer: self.0.state.connection().peer.clone(),
            reason: format!("an unexpected reply: {reply:?}"),
        }
    }
}

/// A future of the broker's confirm for a published message.
///
/// Resolves with a [`PublishError`] if the broker returned or refused the message, or if the
/// connection was lost before the confirm.
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
        let Poll::Ready(outcome) = Pin::new(outcome).poll(context) else {
            io_thread::waits_for_connection();
            return Poll::Pending;
        };
        Poll::Ready(match outcome {
            Ok(outcome) => outcome.into_result(self.message),
            // The sender is dropped unused only together with the channel's state.
            Err(_) => Err(PublishError::Lost(Error::Stopped)),
        })
    }
}
