//! The exchange and the queues of RPC.

use uuid::Uuid;

use crate::{
    amqp::{Binding, Exchange, Queue, Table, Value},
    config::{Config, ConfigError},
};

/// Default exchange of RPC requests and replies. Config key: `rpc_exchange`.
const RPC_EXCHANGE: &str = "nameko-rpc";
/// Time in milliseconds after which a reply queue without consumers expires.
const REPLY_QUEUE_TTL: i64 = 300_000;

/// Returns the durable topic exchange of RPC: `nameko-rpc`, or the one that the config key
/// `rpc_exchange` names.
pub(crate) fn rpc_exchange(config: &Config) -> Result<Exchange, ConfigError> {
    Ok(Exchange::topic(
        config.str("rpc_exchange")?.unwrap_or(RPC_EXCHANGE),
    ))
}

/// Returns the request queue of a service: `rpc-{service}`, bound with `{service}.*`.
pub(crate) fn request_queue(exchange: &Exchange, service: &str) -> Queue {
    Queue {
        bindings: vec![binding(exchange, format!("{service}.*"))],
        ..Queue::new(format!("rpc-{service}"))
    }
}

/// Returns a reply queue: `rpc.reply-{owner}-{id}`, bound with `{id}`. It expires after five
/// minutes without a consumer.
pub(crate) fn reply_queue(exchange: &Exchange, owner: &str, id: Uuid) -> Queue {
    Queue {
        arguments: Table::from_iter([("x-expires".to_owned(), Value::Int(REPLY_QUEUE_TTL))]),
        bindings: vec![binding(exchange, id.to_string())],
        ..Queue::new(format!("rpc.reply-{owner}-{id}"))
    }
}

fn binding(exchange: &Exchange, routing_key: String) -> Binding {
    Binding {
        exchange: exchange.clone(),
        routing_key,
        arguments: Table::default(),
    }
}
