//! Exchanges, queues and bindings.

use std::time::Duration;

use crate::table::{Table, Value};

/// Type of an exchange, which determines its routing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Routes to queues bound with the same routing key.
    Direct,
    /// Routes to every bound queue.
    Fanout,
    /// Routes to queues bound with a matching pattern: `*` is one word, `#` any number of words.
    Topic,
    /// Routes by headers.
    Headers,
    /// A type from a plugin of the broker, such as `x-delayed-message`.
    Other(String),
}

impl ExchangeKind {
    /// Returns the name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
            ExchangeKind::Other(name) => name,
        }
    }
}

impl From<&str> for ExchangeKind {
    fn from(name: &str) -> Self {
        match name {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            "topic" => ExchangeKind::Topic,
            "headers" => ExchangeKind::Headers,
            other => ExchangeKind::Other(other.to_owned()),
        }
    }
}

/// An exchange to declare or to bind to.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Name. `""` is the default exchange, which routes to the queue named by the routing key and
    /// is never declared.
    pub name: String,
    /// Type.
    pub kind: ExchangeKind,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether the broker deletes it with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges can publish to it.
    pub internal: bool,
    /// Whether a declaration only checks that it exists.
    pub passive: bool,
    /// Further arguments.
    pub arguments: Table,
    /// Whether it is neither declared nor checked.
    pub no_declare: bool,
}

impl Exchange {
    /// Creates a durable exchange.
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            passive: false,
            arguments: Table::new(),
            no_declare: false,
        }
    }

    /// Returns the default exchange.
    pub fn nameless() -> Self {
        Self {
            no_declare: true,
            ..Self::direct("")
        }
    }

    /// Creates a durable direct exchange.
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Direct)
    }

    /// Creates a durable fanout exchange.
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Fanout)
    }

    /// Creates a durable topic exchange.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }

    /// Creates a durable headers exchange.
    pub fn headers(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Headers)
    }

    /// Sets whether it survives a restart of the broker. Default true.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Sets whether the broker deletes it with its last binding. Default false.
    #[must_use]
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.auto_delete = auto_delete;
        self
    }

    /// Sets whether only other exchanges can publish to it. Default false.
    #[must_use]
    pub fn internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Leaves it neither declared nor checked.
    #[must_use]
    pub fn no_declare(mut self) -> Self {
        self.no_declare = true;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Sets the exchange for unroutable messages (`alternate-exchange`).
    #[must_use]
    pub fn alternate(self, exchange: impl Into<String>) -> Self {
        self.argument("alternate-exchange", exchange.into())
    }

    /// Returns whether it can be declared: neither the default exchange nor marked `no_declare`.
    pub(crate) fn is_declarable(&self) -> bool {
        !self.no_declare && !self.name.is_empty()
    }
}

/// A queue to declare, with its bindings.
///
/// ```
/// use std::time::Duration;
/// use nameko_amqp::{Exchange, Queue, Value};
///
/// let queue = Queue::new("orders")
///     .bind(Exchange::topic("shop"), "order.*")
///     .quorum()
///     .delivery_limit(5)
///     .dead_letter("failed", "orders")
///     .message_ttl(Duration::from_secs(3600));
/// assert_eq!(queue.arguments.get("x-message-ttl").and_then(Value::as_int), Some(3_600_000));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Name. `""` lets the broker generate one.
    pub name: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether only the declaring connection can use it. The broker deletes it with the connection.
    pub exclusive: bool,
    /// Whether the broker deletes it with its last consumer.
    pub auto_delete: bool,
    /// Whether a declaration only checks that it exists.
    pub passive: bool,
    /// Whether it is neither declared nor checked nor bound.
    pub no_declare: bool,
    /// Further arguments, such as `x-expires`.
    pub arguments: Table,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

impl Queue {
    /// Creates a durable queue without bindings.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            passive: false,
            no_declare: false,
            arguments: Table::new(),
            bindings: Vec::new(),
        }
    }

    /// Adds a binding to `exchange` with `routing_key`.
    #[must_use]
    pub fn bind(mut self, exchange: Exchange, routing_key: impl Into<String>) -> Self {
        self.bindings.push(Binding::new(exchange, routing_key));
        self
    }

    /// Adds a binding to a headers exchange. `arguments` are the headers to match, and `x-match`
    /// (`all` or `any`).
    #[must_use]
    pub fn bind_headers(mut self, exchange: Exchange, arguments: Table) -> Self {
        self.bindings.push(Binding {
            arguments,
            ..Binding::new(exchange, "")
        });
        self
    }

    /// Sets whether it survives a restart of the broker. Default true.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Sets whether only the declaring connection can use it. Default false.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Sets whether the broker deletes it with its last consumer. Default false.
    #[must_use]
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.auto_delete = auto_delete;
        self
    }

    /// Leaves it neither declared nor checked nor bound.
    #[must_use]
    pub fn no_declare(mut self) -> Self {
        self.no_declare = true;
        self
    }

    /// Adds an argument, such as `x-max-priority`.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl Into<Table>) -> Self {
        self.arguments.extend(arguments.into());
        self
    }

    /// Makes it a quorum queue, which is replicated in a cluster (`x-queue-type`). It must be
    /// durable, and neither exclusive nor auto-delete.
    #[must_use]
    pub fn quorum(self) -> Self {
        self.argument("x-queue-type", "quorum")
    }

    /// Sets the exchange and routing key for messages that are rejected, expire or exceed a limit
    /// (`x-dead-letter-exchange`, `x-dead-letter-routing-key`). With the default exchange, `""`,
    /// the key is the name of a queue.
    #[must_use]
    pub fn dead_letter(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.argument("x-dead-letter-exchange", exchange.into())
            .argument("x-dead-letter-routing-key", routing_key.into())
    }

    /// Sets the time after which messages are dropped or dead-lettered (`x-message-ttl`).
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", milliseconds(ttl))
    }

    /// Sets the time after which the broker deletes the unused queue (`x-expires`).
    #[must_use]
    pub fn expires(self, after: Duration) -> Self {
        self.argument("x-expires", milliseconds(after))
    }

    /// Limits the number of ready messages (`x-max-length`). The oldest is dropped, unless
    /// [`overflow`](Self::overflow) is set.
    #[must_use]
    pub fn max_length(self, messages: u32) -> Self {
        self.argument("x-max-length", messages)
    }

    /// Limits the size of all ready messages (`x-max-length-bytes`).
    #[must_use]
    pub fn max_length_bytes(self, bytes: u32) -> Self {
        self.argument("x-max-length-bytes", bytes)
    }

    /// Sets the behaviour of a full queue: `drop-head`, `reject-publish` or `reject-publish-dlx`
    /// (`x-overflow`).
    #[must_use]
    pub fn overflow(self, behaviour: impl Into<String>) -> Self {
        self.argument("x-overflow", behaviour.into())
    }

    /// Sets the highest message priority (`x-max-priority`). A few levels are enough.
    #[must_use]
    pub fn max_priority(self, highest: u8) -> Self {
        self.argument("x-max-priority", i32::from(highest))
    }

    /// Sets the number of redeliveries of a quorum queue after which a message is dropped or
    /// dead-lettered (`x-delivery-limit`).
    #[must_use]
    pub fn delivery_limit(self, times: u32) -> Self {
        self.argument("x-delivery-limit", times)
    }

    /// Delivers to only one of its consumers at a time (`x-single-active-consumer`).
    #[must_use]
    pub fn single_active_consumer(self) -> Self {
        self.argument("x-single-active-consumer", true)
    }
}

impl From<&str> for Queue {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Queue {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// A binding of a queue to an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Exchange, declared before the binding unless it is the default one or marked `no_declare`.
    pub exchange: Exchange,
    /// Routing key or pattern.
    pub routing_key: String,
    /// Arguments, for a headers exchange.
    pub arguments: Table,
}

impl Binding {
    /// Creates a binding without arguments.
    pub fn new(exchange: Exchange, routing_key: impl Into<String>) -> Self {
        Self {
            exchange,
            routing_key: routing_key.into(),
            arguments: Table::new(),
        }
    }
}

/// Converts to milliseconds, the unit of the broker's arguments.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
