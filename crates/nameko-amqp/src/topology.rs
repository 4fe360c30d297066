//! Exchanges, queues and bindings: what is declared on a broker.

use std::time::Duration;

use crate::table::{Table, Value};

/// How an exchange routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// To queues bound with exactly the routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// To queues bound with a matching pattern: `*` is one word, `#` any number of words.
    Topic,
    /// By headers.
    Headers,
    /// A kind that a plugin of the broker brings, e.g. `x-delayed-message`.
    Other(String),
}

impl ExchangeKind {
    /// The name on the wire.
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
    /// The name. `""` is the default exchange, which routes to the queue named by the routing key and is never declared.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// It survives a restart of the broker.
    pub durable: bool,
    /// It goes when its last binding goes.
    pub auto_delete: bool,
    /// Only other exchanges may publish to it.
    pub internal: bool,
    /// Only check that it is there.
    pub passive: bool,
    /// Further arguments for the broker.
    pub arguments: Table,
    /// Leave it as it is: neither declare nor check it.
    pub no_declare: bool,
}

impl Exchange {
    /// A durable exchange.
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

    /// The default exchange.
    pub fn nameless() -> Self {
        Self {
            no_declare: true,
            ..Self::direct("")
        }
    }

    /// A durable direct exchange.
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Direct)
    }

    /// A durable fanout exchange.
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Fanout)
    }

    /// A durable topic exchange.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }

    /// A durable headers exchange.
    pub fn headers(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Headers)
    }

    /// It survives a restart of the broker, or not. It does unless this says otherwise.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// It goes when its last binding goes, or stays.
    #[must_use]
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.auto_delete = auto_delete;
        self
    }

    /// Only other exchanges may publish to it.
    #[must_use]
    pub fn internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Leave it as it is: neither declare nor check it.
    #[must_use]
    pub fn no_declare(mut self) -> Self {
        self.no_declare = true;
        self
    }

    /// An argument for the broker.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// What this one cannot route goes to the exchange of that name (`alternate-exchange`).
    #[must_use]
    pub fn alternate(self, exchange: impl Into<String>) -> Self {
        self.argument("alternate-exchange", exchange.into())
    }

    /// Whether declaring it sends anything.
    pub(crate) fn is_declarable(&self) -> bool {
        !self.no_declare && !self.name.is_empty()
    }
}

/// A queue to declare, with its bindings.
///
/// ```
/// use std::time::Duration;
/// use nameko_amqp::{Exchange, Queue};
///
/// let queue = Queue::new("orders")
///     .bind(Exchange::topic("shop"), "order.*")
///     .quorum()
///     .delivery_limit(5)
///     .dead_letter("failed", "orders")
///     .message_ttl(Duration::from_secs(3600));
/// assert_eq!(queue.arguments.get("x-message-ttl").and_then(|it| it.as_int()), Some(3_600_000));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// The name. `""` lets the broker choose one.
    pub name: String,
    /// It survives a restart of the broker.
    pub durable: bool,
    /// It belongs to the connection that declares it and goes with it.
    pub exclusive: bool,
    /// It goes when its last consumer goes.
    pub auto_delete: bool,
    /// Only check that it is there.
    pub passive: bool,
    /// Leave it as it is: neither declare nor check nor bind it.
    pub no_declare: bool,
    /// Further arguments for the broker, e.g. `x-expires`.
    pub arguments: Table,
    /// What it is bound to.
    pub bindings: Vec<Binding>,
}

impl Queue {
    /// A durable queue without bindings.
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

    /// The same queue, bound to `exchange` with `routing_key` too.
    #[must_use]
    pub fn bind(mut self, exchange: Exchange, routing_key: impl Into<String>) -> Self {
        self.bindings.push(Binding::new(exchange, routing_key));
        self
    }

    /// The same queue, bound to a headers exchange: `arguments` are the headers to match, and `x-match` (`all` or `any`).
    #[must_use]
    pub fn bind_headers(mut self, exchange: Exchange, arguments: Table) -> Self {
        self.bindings.push(Binding {
            arguments,
            ..Binding::new(exchange, "")
        });
        self
    }

    /// It survives a restart of the broker, or not. It does unless this says otherwise.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// It belongs to the connection that declares it and goes with it, or not.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// It goes when its last consumer goes, or stays.
    #[must_use]
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.auto_delete = auto_delete;
        self
    }

    /// Leave it as it is: neither declare nor check nor bind it.
    #[must_use]
    pub fn no_declare(mut self) -> Self {
        self.no_declare = true;
        self
    }

    /// An argument for the broker: any that it knows, `x-max-priority` for one.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Further arguments for the broker.
    #[must_use]
    pub fn arguments(mut self, arguments: impl Into<Table>) -> Self {
        self.arguments.extend(arguments.into());
        self
    }

    /// A quorum queue: replicated, for clusters (`x-queue-type`). It must be durable, and neither exclusive nor auto-delete.
    #[must_use]
    pub fn quorum(self) -> Self {
        self.argument("x-queue-type", "quorum")
    }

    /// Messages that are rejected, expire or do not fit go to `exchange`, with `routing_key` (`x-dead-letter-exchange`,
    /// `x-dead-letter-routing-key`). `""` is the default exchange: the key then names a queue.
    #[must_use]
    pub fn dead_letter(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.argument("x-dead-letter-exchange", exchange.into())
            .argument("x-dead-letter-routing-key", routing_key.into())
    }

    /// Messages are dropped, or dead-lettered, when they were in the queue for so long (`x-message-ttl`).
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", milliseconds(ttl))
    }

    /// The queue goes when it was not used for so long (`x-expires`).
    #[must_use]
    pub fn expires(self, after: Duration) -> Self {
        self.argument("x-expires", milliseconds(after))
    }

    /// At most so many messages wait in it; the oldest makes room, unless [`overflow`](Self::overflow) says otherwise
    /// (`x-max-length`).
    #[must_use]
    pub fn max_length(self, messages: u32) -> Self {
        self.argument("x-max-length", messages)
    }

    /// At most so many bytes of messages wait in it (`x-max-length-bytes`).
    #[must_use]
    pub fn max_length_bytes(self, bytes: u32) -> Self {
        self.argument("x-max-length-bytes", bytes)
    }

    /// What happens when it is full: `drop-head`, `reject-publish` or `reject-publish-dlx` (`x-overflow`).
    #[must_use]
    pub fn overflow(self, behaviour: impl Into<String>) -> Self {
        self.argument("x-overflow", behaviour.into())
    }

    /// Messages have priorities from 0 to this (`x-max-priority`); a few levels are enough.
    #[must_use]
    pub fn max_priority(self, highest: u8) -> Self {
        self.argument("x-max-priority", i32::from(highest))
    }

    /// How often a message of a quorum queue comes back before it is dropped or dead-lettered (`x-delivery-limit`).
    #[must_use]
    pub fn delivery_limit(self, times: u32) -> Self {
        self.argument("x-delivery-limit", times)
    }

    /// Only one of its consumers is given messages at a time (`x-single-active-consumer`).
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
    /// The exchange; declared first, unless it is the default one or says not to.
    pub exchange: Exchange,
    /// The routing key or pattern.
    pub routing_key: String,
    /// Further arguments, e.g. for a headers exchange.
    pub arguments: Table,
}

impl Binding {
    /// A binding without arguments.
    pub fn new(exchange: Exchange, routing_key: impl Into<String>) -> Self {
        Self {
            exchange,
            routing_key: routing_key.into(),
            arguments: Table::new(),
        }
    }
}

/// As the broker counts time.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
