//! Builder methods for the options of publishers and messages.

use std::{fmt, future::IntoFuture};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{
    destination::{Body, Destination, publish},
    options::Options,
};
use crate::error::Result;

/// Defines the builder methods for a type with a field `options`.
macro_rules! publish_options {
    () => {
        /// Sets whether to wait for the broker's confirm. Default: `true`; without it, lost
        /// messages are not detected.
        pub fn use_confirms(mut self, confirms: bool) -> Self {
            self.options.use_confirms = Some(confirms);
            self
        }

        /// Sets whether an unroutable message is an error. Requires confirms. Default: `false`.
        pub fn mandatory(mut self, mandatory: bool) -> Self {
            self.options.mandatory = Some(mandatory);
            self
        }

        /// Sets the retries after a lost connection; `None` disables them. Default: three, a second
        /// apart.
        pub fn retry(mut self, retry: Option<$crate::amqp::Retry>) -> Self {
            self.options.retry = Some(retry);
            self
        }

        /// Sets the time limit of the publish with its retries; `None` waits as long as the broker
        /// takes. Default: the config key `publish_timeout`, else 20 s and the delays before the
        /// retries, no limit for an unlimited number of them.
        pub fn timeout(mut self, timeout: impl Into<Option<std::time::Duration>>) -> Self {
            self.options.timeout = Some(timeout.into());
            self
        }

        /// Sets the format of the body, such as `json` or `msgpack`. Default: the config key
        /// `serializer`.
        pub fn serializer(mut self, name: impl Into<String>) -> Self {
            self.options.serializer = Some(name.into());
            self
        }

        /// Compresses the body.
        pub fn compression(mut self, compression: $crate::serialization::Compression) -> Self {
            self.options.compression = Some(compression);
            self
        }

        /// Overrides the content type of the serializer.
        pub fn content_type(mut self, content_type: impl Into<$crate::amqp::Text>) -> Self {
            self.options.content_type = Some(content_type.into());
            self
        }

        /// Overrides the content encoding of the serializer.
        pub fn content_encoding(mut self, content_encoding: impl Into<$crate::amqp::Text>) -> Self {
            self.options.content_encoding = Some(content_encoding.into());
            self
        }

        /// Adds a header. Headers of a message override those of its publisher; the framework's
        /// own, `nameko.*`, override both.
        pub fn header(
            mut self,
            name: impl Into<String>,
            value: impl Into<$crate::amqp::Value>,
        ) -> Self {
            self.options.headers.insert(name, value);
            self
        }

        /// Adds headers, see [`header`](Self::header).
        pub fn headers(mut self, headers: impl Into<$crate::amqp::Table>) -> Self {
            self.options.headers.extend(headers.into());
            self
        }

        /// Sets whether the message is persistent (delivery mode 2) or transient (1). Default:
        /// `true`.
        pub fn persistent(mut self, persistent: bool) -> Self {
            self.options.persistent = Some(persistent);
            self
        }

        /// Sets the priority, for queues with priorities. Default: 0.
        pub fn priority(mut self, priority: u8) -> Self {
            self.options.priority = Some(priority);
            self
        }

        /// Sets the time in a queue after which the message is dropped or dead-lettered.
        pub fn expiration(mut self, expiration: std::time::Duration) -> Self {
            self.options.expiration = Some(expiration);
            self
        }

        /// Sets the correlation id of a request and its reply.
        pub fn correlation_id(mut self, id: impl Into<$crate::amqp::Text>) -> Self {
            self.options.correlation_id = Some(id.into());
            self
        }

        /// Sets the address for replies.
        pub fn reply_to(mut self, reply_to: impl Into<$crate::amqp::Text>) -> Self {
            self.options.reply_to = Some(reply_to.into());
            self
        }

        /// Sets the message id.
        pub fn message_id(mut self, id: impl Into<$crate::amqp::Text>) -> Self {
            self.options.message_id = Some(id.into());
            self
        }

        /// Sets the timestamp, in seconds since the Unix epoch.
        pub fn timestamp(mut self, seconds: u64) -> Self {
            self.options.timestamp = Some(seconds);
            self
        }

        /// Sets the message type, the property `type`.
        pub fn message_type(mut self, name: impl Into<$crate::amqp::Text>) -> Self {
            self.options.message_type = Some(name.into());
            self
        }

        /// Sets the user id; the broker refuses one other than that of the connection.
        pub fn user_id(mut self, user: impl Into<$crate::amqp::Text>) -> Self {
            self.options.user_id = Some(user.into());
            self
        }

        /// Sets the id of the publishing application.
        pub fn app_id(mut self, app: impl Into<$crate::amqp::Text>) -> Self {
            self.options.app_id = Some(app.into());
            self
        }

        /// Sets the cluster id, deprecated by AMQP 0-9-1.
        pub fn cluster_id(mut self, cluster: impl Into<$crate::amqp::Text>) -> Self {
            self.options.cluster_id = Some(cluster.into());
            self
        }

        /// Declares a queue with its exchanges and bindings before publishing.
        ///
        /// A publisher declares it once per connection, or before each message for queues that may
        /// disappear (`auto_delete`, `x-expires`). A single message and a
        /// [`StandaloneDispatcher`](crate::StandaloneDispatcher) declare it each time.
        pub fn declare(mut self, queue: impl Into<$crate::amqp::Queue>) -> Self {
            self.options.queues.push(queue.into());
            self
        }

        /// Declares an exchange before publishing, like [`declare`](Self::declare).
        pub fn declare_exchange(mut self, exchange: $crate::amqp::Exchange) -> Self {
            self.options.exchanges.push(exchange);
            self
        }
    };
}

pub(crate) use publish_options;

/// A message, published when awaited. Its options override the publisher's.
#[must_use = "a message is only published when awaited"]
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

    /// Sets the routing key; on the default exchange, the name of the queue. Default: the
    /// publisher's, else `""`.
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
        // Serializes the body before the first await.
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
