//! The names and envelopes of Nameko on the wire. Nothing else in the crate spells them.
//!
//! Source of every fact: what Nameko 2.14.1 sends and expects.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use crate::{
    amqp::{Binding, Exchange, Properties, Queue, Table, Value as Field},
    arguments::Arguments,
    config::Config,
    error::{Error, Raise, RemoteError},
    serialization,
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
/// The content type of what this crate sends.
pub(crate) const JSON: &str = "application/json";
/// The content encoding of what this crate sends.
pub(crate) const UTF_8: &str = "utf-8";
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

/// The properties of everything that is sent: JSON, persistent.
pub(crate) fn properties() -> Properties {
    Properties {
        content_type: Some(JSON.into()),
        content_encoding: Some(UTF_8.into()),
        delivery_mode: Some(2),
        priority: Some(0),
        ..Properties::default()
    }
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
    format!("{service}.{method}.{}", Uuid::new_v4())
}

/// The request `{"args": [...], "kwargs": {...}}`, from its two halves as JSON text.
pub(crate) fn encode_request(args: &[u8], kwargs: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(args.len() + kwargs.len() + 22);
    body.extend_from_slice(b"{\"args\": ");
    body.extend_from_slice(args);
    body.extend_from_slice(b", \"kwargs\": ");
    body.extend_from_slice(kwargs);
    body.push(b'}');
    body
}

/// Reads a request. A body that is none is answered with the error it gives Nameko.
pub(crate) fn decode_request(content_type: Option<&str>, body: &[u8]) -> Result<Arguments, Fault> {
    if let Some(other) = content_type.filter(|it| !is_json(it)) {
        return Err(Fault::nameko(
            "MalformedRequest",
            format!("cannot read a request of content type `{other}`: send `{JSON}`"),
        ));
    }
    let malformed = |error: &dyn fmt::Display| {
        Fault::nameko(
            "MalformedRequest",
            format!("request is not valid JSON: {error}"),
        )
    };
    let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
    let text = &*serialization::standard(text).map_err(|error| malformed(&error))?;
    if !text.trim_start().starts_with('{') {
        let other: &RawValue = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        return Err(Fault::python("TypeError", not_a_mapping(other.get())));
    }

    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        args: Option<&'a RawValue>,
        #[serde(borrow)]
        kwargs: Option<&'a RawValue>,
    }

    let request: Request<'_> = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    match (request.args, request.kwargs) {
        (Some(args), Some(kwargs)) => {
            Arguments::from_json(args.get(), kwargs.get()).map_err(|error| error.fault())
        }
        // An explicit null reads as absent here; Nameko tells them apart, and says that null is no list.
        _ => missing_half(text),
    }
}

fn missing_half(text: &str) -> Result<Arguments, Fault> {
    let keys: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    if keys.contains_key("args") && keys.contains_key("kwargs") {
        let what = if keys["args"].is_null() {
            "args"
        } else {
            "kwargs"
        };
        return Err(Fault::nameko(
            "IncorrectSignature",
            format!("`{what}` of the request is null"),
        ));
    }
    Err(Fault::nameko(
        "MalformedRequest",
        "Message missing `args` or `kwargs`",
    ))
}

/// Python's words for `body["args"]` on something that is no dict.
fn not_a_mapping(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'[') => "list indices must be integers or slices, not str".to_owned(),
        Some(b'"') => "string indices must be integers, not 'str'".to_owned(),
        Some(b'n') => "'NoneType' object is not subscriptable".to_owned(),
        Some(b't' | b'f') => "'bool' object is not subscriptable".to_owned(),
        _ if json.contains(['.', 'e', 'E']) => "'float' object is not subscriptable".to_owned(),
        _ => "'int' object is not subscriptable".to_owned(),
    }
}

/// Whether a content type is JSON's, parameters aside.
pub(crate) fn is_json(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(JSON)
}

/// The reply `{"result": <value>, "error": null}`, from the value as JSON text.
pub(crate) fn encode_result(value: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(value.len() + 27);
    body.extend_from_slice(b"{\"result\": ");
    body.extend_from_slice(value);
    body.extend_from_slice(b", \"error\": null}");
    body
}

/// The reply `{"result": null, "error": {...}}`.
pub(crate) fn encode_fault(fault: &Fault) -> Vec<u8> {
    let error = serialization::to_vec(fault).unwrap_or_else(|_| b"{}".to_vec());
    let mut body = Vec::with_capacity(error.len() + 27);
    body.extend_from_slice(b"{\"result\": null, \"error\": ");
    body.extend_from_slice(&error);
    body.push(b'}');
    body
}

/// Reads a reply into the JSON text of its result, or the error it carries.
pub(crate) fn decode_reply(
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Box<RawValue>, Error> {
    if let Some(other) = content_type.filter(|it| !is_json(it)) {
        return Err(serialization::Error::content_type(other).into());
    }

    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }

    let text = std::str::from_utf8(body).map_err(serialization::Error::read)?;
    let text = &*serialization::standard(text)?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(serialization::Error::read)?;
    match envelope.error.map(RawValue::get) {
        // A falsy error means success.
        None | Some("null" | "{}" | "false" | "0" | "\"\"" | "[]") => Ok(envelope
            .result
            .map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned)),
        Some(error) => {
            let fault: Fault = serde_json::from_str(error).map_err(serialization::Error::read)?;
            Err(fault.into_error())
        }
    }
}

/// The error object of a reply: what the method raised, as any peer reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The class name: `ValueError`.
    pub exc_type: String,
    /// The class with its module, dotted: `builtins.ValueError`.
    #[serde(default)]
    pub exc_path: String,
    /// What it was raised with. Leaves are text, as Nameko sends them.
    #[serde(default)]
    pub exc_args: Vec<Value>,
    /// The error as text.
    #[serde(default, deserialize_with = "text")]
    pub value: String,
}

/// Nameko sends an exception that can be iterated as a list, not as text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

impl Fault {
    /// An error of the class `exc_type`, of no module, raised with `value`.
    pub fn new(exc_type: impl Into<String>, value: impl Into<String>) -> Self {
        let exc_type = exc_type.into();
        Self {
            exc_path: exc_type.clone(),
            ..Self::with_path(exc_type, String::new(), value.into())
        }
    }

    /// The error object of any error a method can return.
    pub fn of(error: &impl Raise) -> Self {
        error.fault()
    }

    /// An error of the Rust type `path`: `my_crate::orders::NotFound` reads as `my_crate.orders.NotFound`.
    pub(crate) fn from_type(path: &str, value: String) -> Self {
        let plain = path.split('<').next().unwrap_or(path);
        let exc_type = plain.rsplit("::").next().unwrap_or(plain);
        Self::with_path(exc_type.to_owned(), plain.replace("::", "."), value)
    }

    /// One of Nameko's own exceptions.
    pub(crate) fn nameko(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("nameko.exceptions.{exc_type}"),
            value.into(),
        )
    }

    /// One of Python's built-in exceptions.
    pub(crate) fn python(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("builtins.{exc_type}"),
            value.into(),
        )
    }

    /// A result that could not be serialised. Its class takes no arguments on the wire, as upstream sends it.
    pub(crate) fn unserializable(what: &str) -> Self {
        Self {
            exc_args: Vec::new(),
            ..Self::nameko(
                "UnserializableValueError",
                format!("Unserializable value: `{what}`"),
            )
        }
    }

    /// A method that panicked.
    pub(crate) fn panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = match (
            payload.downcast_ref::<&str>(),
            payload.downcast_ref::<String>(),
        ) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "no message".to_owned(),
        };
        Self::new("Panic", text)
    }

    fn with_path(exc_type: String, exc_path: String, value: String) -> Self {
        Self {
            exc_type,
            exc_path,
            exc_args: vec![Value::String(value.clone())],
            value,
        }
    }

    /// The error that a caller sees: the registered classes as themselves, all others as a remote error.
    pub(crate) fn into_error(self) -> Error {
        let argument = || match self.exc_args.first() {
            Some(Value::String(text)) => text.clone(),
            _ => self.value.clone(),
        };
        match self.exc_path.as_str() {
            "nameko.exceptions.MalformedRequest" => Error::MalformedRequest(argument()),
            "nameko.exceptions.MethodNotFound" => Error::MethodNotFound(argument()),
            "nameko.exceptions.IncorrectSignature" => Error::IncorrectSignature(argument()),
            _ => Error::Remote(RemoteError {
                exc_type: self.exc_type,
                exc_path: self.exc_path,
                exc_args: self.exc_args,
                value: self.value,
            }),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: `safe_for_serialization` of Nameko 2.14.1, which makes a list of whatever can be iterated.
    #[test]
    fn an_exception_that_can_be_iterated_is_a_remote_error_too() {
        let body = br#"{"result": null, "error": {"exc_type": "Many", "value": ["a", "b"]}}"#;
        let error = decode_reply(Some(JSON), body).expect_err("an error");
        assert_eq!(error.to_string(), r#"Many ["a","b"]"#);
    }
}
