//! The names and envelopes of Nameko on the wire. Nothing else in the crate spells them.
//!
//! Source of every fact: what Nameko 2.14.1 sends and expects.

mod events;
mod fault;
mod reply;
mod request;

use bytes::Bytes;
use uuid::Uuid;

pub(crate) use self::events::{
    broadcast_identifier, event_exchange, event_exchange_name, event_queue_name,
};
pub use self::fault::Fault;
pub(crate) use self::reply::{decode_reply, encode_fault, encode_result};
pub(crate) use self::request::{Call, decode_request};
use crate::{
    amqp::{Binding, Exchange, Properties, Queue, Table, Value as Field},
    config::Config,
    error::Error,
    serialization::Encoded,
};

/// The exchange of RPC requests and replies, unless the config key `rpc_exchange` names another.
pub(crate) const RPC_EXCHANGE: &str = "nameko-rpc";
/// What headers of the framework begin with.
pub(crate) const HEADER_PREFIX: &str = "nameko.";
/// The header that holds the ids of the calls that led here, oldest first.
pub(crate) const CALL_ID_STACK: &str = "call_id_stack";
/// The well-known keys of context data. Source: `nameko/constants.py` of 2.14.1.
pub(crate) const LANGUAGE: &str = "language";
pub(crate) const USER_ID: &str = "user_id";
pub(crate) const USER_AGENT: &str = "user_agent";
pub(crate) const AUTH_TOKEN: &str = "auth_token";
/// The content type of JSON.
pub(crate) const JSON: &str = "application/json";
/// The content type of MessagePack, kombu's `msgpack`.
pub(crate) const MESSAGE_PACK: &str = "application/x-msgpack";
/// The content type of a body that no serialiser wrote, kombu's `raw`; also counts where there is none.
pub(crate) const RAW: &str = "application/data";
/// Another content type of a body that no serialiser wrote.
pub(crate) const TEXT: &str = "application/text";
/// The content encoding of text.
pub(crate) const UTF_8: &str = "utf-8";
/// The content encoding of what is no text.
pub(crate) const BINARY: &str = "binary";
/// The header that says how the body is compressed.
pub(crate) const COMPRESSION: &str = "compression";
/// How long a reply queue without a consumer is kept, in milliseconds.
pub(crate) const REPLY_QUEUE_TTL: i64 = 300_000;
/// How many callers the call id stack remembers, unless the config key `parent_calls_tracked` says otherwise.
pub(crate) const PARENT_CALLS_TRACKED: usize = 10;

/// The durable topic exchange for RPC: `nameko-rpc`, unless the config key `rpc_exchange` names another.
pub(crate) fn rpc_exchange(config: &Config) -> Result<Exchange, Error> {
    Ok(Exchange::topic(
        config.str("rpc_exchange")?.unwrap_or(RPC_EXCHANGE),
    ))
}

/// The queue of a service's requests: `rpc-{service}`, bound with `{service}.*`.
pub(crate) fn request_queue(exchange: &Exchange, service: &str) -> Queue {
    Queue {
        bindings: vec![binding(exchange, format!("{service}.*"))],
        ..Queue::new(format!("rpc-{service}"))
    }
}

/// A reply queue: `rpc.reply-{owner}-{id}`, bound with `{id}`; it expires when it was not consumed for five minutes.
pub(crate) fn reply_queue(exchange: &Exchange, owner: &str, id: Uuid) -> Queue {
    Queue {
        arguments: Table::from_iter([("x-expires".to_owned(), Field::Int(REPLY_QUEUE_TTL))]),
        bindings: vec![binding(exchange, id.to_string())],
        ..Queue::new(format!("rpc.reply-{owner}-{id}"))
    }
}

/// The body of a message and the properties of everything that is sent: what was encoded, persistent.
pub(crate) fn message(encoded: Encoded, mut headers: Table) -> (Properties, Bytes) {
    if let Some(compression) = encoded.compression {
        headers.insert(COMPRESSION, compression.content_type());
    }
    let properties = Properties {
        content_type: Some(encoded.content_type),
        content_encoding: Some(encoded.content_encoding),
        headers,
        delivery_mode: Some(2),
        priority: Some(0),
        ..Properties::default()
    };
    (properties, encoded.body.into())
}

/// Whether a content type is the one that is `wanted`, parameters aside.
pub(crate) fn is_type(content_type: &str, wanted: &str) -> bool {
    let plain = || content_type.split(';').next().unwrap_or_default().trim();
    content_type == wanted || plain().eq_ignore_ascii_case(wanted)
}

/// The owner's name in the reply queues of standalone clients, and in their call ids.
pub(crate) const STANDALONE: &str = "standalone_rpc_proxy";

fn binding(exchange: &Exchange, routing_key: String) -> Binding {
    Binding {
        exchange: exchange.clone(),
        routing_key,
        arguments: Table::default(),
    }
}

/// The routing key of a request.
pub(crate) fn request_key(service: &str, method: &str) -> String {
    format!("{service}.{method}")
}

/// The method a routing key names: its last dotted part.
pub(crate) fn method_of(routing_key: &str) -> &str {
    routing_key.rsplit('.').next().unwrap_or(routing_key)
}

/// A new call id: `{service}.{method}.{uuid4}`.
pub(crate) fn call_id(service: &str, method: &str) -> String {
    let mut buffer = Uuid::encode_buffer();
    let unique = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    [service, method, unique].join(".")
}
