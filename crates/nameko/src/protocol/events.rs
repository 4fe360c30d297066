//! Names of event exchanges and queues. Source: `nameko/events.py` and
//! `nameko/standalone/events.py`, Nameko 2.14.1.

use serde_json::Value;
use uuid::Uuid;

use crate::{amqp::Exchange, config::Config};

/// Returns the exchange of a service's events, `{service}.events`.
///
/// Config keys: `AUTO_DELETE_EVENT_EXCHANGES` makes it auto-delete; `DECLARE_EVENT_EXCHANGES:
/// false` disables its declaration.
pub(crate) fn event_exchange(config: &Config, service: &str) -> Exchange {
    let declared = config.get("DECLARE_EVENT_EXCHANGES") != Some(&Value::Bool(false));
    let auto_delete = config
        .get("AUTO_DELETE_EVENT_EXCHANGES")
        .is_some_and(truthy);
    Exchange {
        auto_delete,
        no_declare: !declared,
        ..Exchange::topic(event_exchange_name(service))
    }
}

/// Returns the name of the exchange of a service's events.
pub(crate) fn event_exchange_name(service: &str) -> String {
    format!("{service}.events")
}

/// Returns `true` for values that are true in Python.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// Returns the name of an event queue of `source`: `evt-{source}-{event_type}`, with the suffix
/// `--{service}.{method}` for service pools and `-{identifier}` in addition for broadcasts.
pub(crate) fn event_queue_name(
    source: &str,
    event_type: &str,
    method: Option<(&str, &str)>,
    identifier: Option<&str>,
) -> String {
    let mut name = format!("evt-{source}-{event_type}");
    if let Some((service, method)) = method {
        name.push_str(&format!("--{service}.{method}"));
    }
    if let Some(identifier) = identifier {
        name.push('-');
        name.push_str(identifier);
    }
    name
}

/// Returns a new identifier for broadcast handlers, like Python's `uuid4().hex`.
pub(crate) fn broadcast_identifier() -> String {
    Uuid::new_v4().simple().to_string()
}
