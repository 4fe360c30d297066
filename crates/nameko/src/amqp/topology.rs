//! Exchanges, queues and bindings: what is declared on a broker.

use super::table::Table;

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

    /// Whether declaring it sends anything.
    pub(super) fn is_declared(&self) -> bool {
        !self.no_declare && !self.name.is_empty()
    }
}

/// A queue to declare, with its bindings.
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
    pub fn bind(mut self, exchange: Exchange, routing_key: impl Into<String>) -> Self {
        self.bindings.push(Binding::new(exchange, routing_key));
        self
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
