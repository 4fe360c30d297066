//! The options of publishers and of single messages, as methods.

use std::{fmt, future::IntoFuture};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{
    destination::{Body, Destination, publish},
    options::Options,
};
use crate::error::Result;

/// Writes the methods that set options, for a type with a field `options`.
macro_rules! publish_options {
    () => {
        /// Whether to wait until the broker has taken charge of the message. On unless this says otherwise; without it, a
        /// message that is lost is lost in silence.
        pub fn use_confirms(mut self, confirms: bool) -> Self {
            self.options.use_confirms = Some(confirms);
            self
        }

        /// Whether it is an error when no queue takes the message. Needs confirms.
        pub fn mandatory(mut self, mandatory: bool) -> Self {
            self.options.mandatory = Some(mandatory);
            self
        }

        /// How to try again when the connection was lost, `None` for not at all. By default three times, a second apart.
        pub fn retry(mut self, retry: Option<$crate::amqp::Retry>) -> Self {
            self.options.retry = Some(retry);
            self
        }

        /// The format of the body, by the name it is registered with: `json`, `msgpack`. By default the config key
        /// `serializer`.
        pub fn serializer(mut self, name: impl Into<String>) -> Self {
            self.options.serializer = Some(name.into());
            self
        }

        /// Makes the body smaller.
        pub fn compression(mut self, compression: $crate::serialization::Compression) -> Self {
            self.options.compression = Some(compression);
            self
        }

        /// The content type that the message says it has, in place of the serializer's.
        pub fn content_type(mut self, content_type: impl Into<$crate::amqp::Text>) -> Self {
            self.options.content_type = Some(content_type.into());
            self
        }

        /// The content encoding that the message says it has, in place of the serializer's.
        pub fn content_encoding(mut self, content_encoding: impl Into<$crate::amqp::Text>) -> Self {
            self.options.content_encoding = Some(content_encoding.into());
            self
        }

        /// A header. A call's replace the publisher's; those of the framework, `nameko.*`, replace both.
        pub fn header(
            mut self,
            name: impl Into<String>,
            value: impl Into<$crate::amqp::Value>,
        ) -> Self {
            self.options.headers.insert(name, value);
            self
        }

        /// Headers, as with [`header`](Self::header).
        pub fn headers(mut self, headers: impl Into<$crate::amqp::Table>) -> Self {
            self.options.headers.extend(headers.into());
            self
        }

        /// Whether durable queues keep the message on disk (delivery mode 2) or not (1). On unless this says otherwise.
        pub fn persistent(mut self, persistent: bool) -> Self {
            self.options.persistent = Some(persistent);
            self
        }

        /// The priority in queues that have priorities; 0 unless this says otherwise.
        pub fn priority(mut self, priority: u8) -> Self {
            self.options.priority = Some(priority);
            self
        }

        /// After how long in a queue the message is dropped, or dead-lettered.
        pub fn expiration(mut self, expiration: std::time::Duration) -> Self {
            self.options.expiration = Some(expiration);
            self
        }

        /// Tells which request a reply answers.
        pub fn correlation_id(mut self, id: impl Into<$crate::amqp::Text>) -> Self {
            self.options.correlation_id = Some(id.into());
            self
        }

        /// Where replies go.
        pub fn reply_to(mut self, reply_to: impl Into<$crate::amqp::Text>) -> Self {
            self.options.reply_to = Some(reply_to.into());
            self
        }

        /// The application's name for the message.
        pub fn message_id(mut self, id: impl Into<$crate::amqp::Text>) -> Self {
            self.options.message_id = Some(id.into());
            self
        }

        /// When it was made, in seconds since 1970-01-01 00:00 UTC.
        pub fn timestamp(mut self, seconds: u64) -> Self {
            self.options.timestamp = Some(seconds);
            self
        }

        /// The application's name for the kind of message (the property `type`).
        pub fn message_type(mut self, name: impl Into<$crate::amqp::Text>) -> Self {
            self.options.message_type = Some(name.into());
            self
        }

        /// The user who publishes; the broker refuses the message of another.
        pub fn user_id(mut self, user: impl Into<$crate::amqp::Text>) -> Self {
            self.options.user_id = Some(user.into());
            self
        }

        /// The application that publishes.
        pub fn app_id(mut self, app: impl Into<$crate::amqp::Text>) -> Self {
            self.options.app_id = Some(app.into());
            self
        }

        /// A property that AMQP 0-9-1 has deprecated; passed through.
        pub fn cluster_id(mut self, cluster: impl Into<$crate::amqp::Text>) -> Self {
            self.options.cluster_id = Some(cluster.into());
            self
        }

        /// Declares a queue first, with its exchanges and bindings. Of a publisher: once on each connection, or each time for
        /// a queue that may be gone by then (`auto_delete`, `x-expires`); of a single message, and of a
        /// [`StandaloneDispatcher`](crate::StandaloneDispatcher): each time.
        pub fn declare(mut self, queue: impl Into<$crate::amqp::Queue>) -> Self {
            self.options.queues.push(queue.into());
            self
        }

        /// Declares an exchange first, as [`declare`](Self::declare) does a queue.
        pub fn declare_exchange(mut self, exchange: $crate::amqp::Exchange) -> Self {
            self.options.exchanges.push(exchange);
            self
        }
    };
}

pub(crate) use publish_options;

/// A message about to be published, once it is awaited. Its options win over the publisher's.
#[must_use = "a message is published when this is awaited"]
pub struct Publishing<'a, T: ?Sized> {
    destination: Destination,
    body: Body<'a, T>,
    options: Options,
}

impl<'a, T: ?Sized> Publishing<'a, T> {
    pub(crate) fn value(destination: Destination, value: &'a T) -> Self {
        Self::new(destination, Body::Value(value))
    }

    pub(crate) fn bytes(destination: Destination, body: Bytes) -> Self {
        Self::new(destination, Body::Bytes(body))
    }

    fn new(destination: Destination, body: Body<'a, T>) -> Self {
        Self {
            destination,
            body,
            options: Options::default(),
        }
    }

    /// The routing key: the queue's name on the default exchange. `""` unless this, or the publisher, says otherwise.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        self.options.routing_key = Some(key.into());
        self
    }

    publish_options!();
}

impl<T: Serialize + ?Sized> IntoFuture for Publishing<'_, T> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        // The body is written before anything is awaited.
        publish(self.destination, self.body, self.options)
    }
}

impl<T: ?Sized> fmt::Debug for Publishing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
