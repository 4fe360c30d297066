//! A channel.

use super::{
    delivery::{ConsumerTag, Delivery},
    error::{Error, PublishError},
    publisher::Publish,
    table::Table,
    topology::{Exchange, Queue},
};

/// A channel of a connection.
#[derive(Clone, Debug)]
pub struct Channel;

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

/// The broker's word on one published message.
#[derive(Debug)]
pub struct Confirm;

impl Confirm {
    /// Waits for the broker's word.
    ///
    /// # Errors
    ///
    /// The broker gave the message back or refused it, or the connection was lost before it said anything.
    pub async fn wait(self) -> Result<(), PublishError> {
        Err(PublishError::Lost(Error::Stopped))
    }
}

macro_rules! pending {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        impl Channel {
            $($(#[$doc])* pub async fn $name(&self, $($arg: $ty),*) -> Result<$ret, Error> { $(let _ = $arg;)* Err(Error::Stopped) })*
        }
    };
}

pending! {
    /// Declares an exchange, or checks it when it is passive. Does nothing for one that is not to be declared.
    exchange_declare(exchange: &Exchange) -> ();
    /// Deletes an exchange.
    exchange_delete(name: &str) -> ();
    /// Declares a queue, or checks it when it is passive. Its bindings are left to `queue_bind`.
    queue_declare(queue: &Queue) -> QueueDeclared;
    /// Binds a queue to an exchange.
    queue_bind(queue: &str, exchange: &str, routing_key: &str, arguments: &Table) -> ();
    /// Takes a binding away.
    queue_unbind(queue: &str, exchange: &str, routing_key: &str, arguments: &Table) -> ();
    /// Drops the messages that are ready in a queue and says how many there were.
    queue_purge(queue: &str) -> u32;
    /// Deletes a queue and says how many messages were in it.
    queue_delete(queue: &str) -> u32;
    /// How many unacknowledged deliveries each consumer made from now on may hold, 0 for any number.
    qos(prefetch: u16) -> ();
    /// Ends a consumer; the queue is left.
    cancel(tag: &ConsumerTag) -> ();
    /// Fetches one message, if there is one.
    get(queue: &str) -> Option<Delivery>;
    /// Asks the broker to confirm each message published from now on.
    confirm_select() -> ();
    /// Publishes. The returned future is the broker's word on it.
    publish(publish: &Publish) -> Confirm;
    /// Closes the channel.
    close() -> ();
}

impl Channel {
    /// Starts a consumer. `sink` is called on the I/O task and must not block; `on_cancel` when the broker ends the consumer (queue deleted).
    ///
    /// # Errors
    ///
    /// The broker refuses, or the connection is gone.
    pub async fn consume(
        &self,
        queue: &str,
        sink: impl Fn(Delivery) + Send + Sync + 'static,
        on_cancel: impl FnOnce() + Send + 'static,
    ) -> Result<ConsumerTag, Error> {
        let _ = (queue, &sink, &on_cancel);
        Err(Error::Stopped)
    }

    /// Resolves when the channel or its connection ends, with the reason.
    pub async fn closed(&self) -> Error {
        Error::Stopped
    }
}
