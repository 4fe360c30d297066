//! The names of events. Source: `nameko/events.py` and `nameko/standalone/events.py` of 2.14.1.

use serde_json::Value;
use uuid::Uuid;

use crate::{amqp::Exchange, config::Config};

/// The exchange of a service's events: `{service}.events`. The config keys `AUTO_DELETE_EVENT_EXCHANGES` and, where it is
/// false, `DECLARE_EVENT_EXCHANGES` say how it is declared, and whether.
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

/// The name of the exchange of a service's events.
pub(crate) fn event_exchange_name(service: &str) -> String {
    format!("{service}.events")
}

/// What Python takes for true.
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

/// The name of a queue of events of `source`: of all handlers (`evt-{source}-{event_type}`), of those of one method
/// (`--{service}.{method}`), or of those of one method in one instance (`-{identifier}`).
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

/// A new identifier for the instances of a broadcast handler: Python's `uuid4().hex`.
pub(crate) fn broadcast_identifier() -> String {
    Uuid::new_v4().simple().to_string()
}
