//! Configured arguments of the queues declared by this crate, for RPC requests and events.

use serde_json::Value as Json;

use crate::{
    amqp::{Table, Value},
    config::{Config, ConfigError},
};

/// The config key: a mapping of `rpc` and `events` to mappings of arguments.
const KEY: &str = "queue_arguments";

/// Returns the arguments of queues of a `kind`, `rpc` or `events`, from the config key
/// `queue_arguments`.
///
/// ```yaml
/// queue_arguments:
///   rpc: {x-queue-type: quorum}
///   events: {x-queue-type: quorum, x-delivery-limit: 5}
/// ```
pub(crate) fn configured(config: &Config, kind: &str) -> Result<Table, ConfigError> {
    let kinds = match config.get(KEY) {
        None | Some(Json::Null) => return Ok(Table::new()),
        Some(Json::Object(kinds)) => kinds,
        Some(_) => {
            return Err(config.invalid(KEY, "must be a mapping of `rpc` and `events` to arguments"));
        }
    };
    if let Some(other) = kinds
        .keys()
        .find(|kind| !matches!(kind.as_str(), "rpc" | "events"))
    {
        return Err(config.invalid(
            KEY,
            format!("has arguments for `{other}`; there are `rpc` and `events`"),
        ));
    }
    match kinds.get(kind) {
        None | Some(Json::Null) => Ok(Table::new()),
        Some(Json::Object(arguments)) => Ok(arguments
            .iter()
            .map(|(name, value)| (name.clone(), field(value)))
            .collect()),
        Some(_) => Err(config.invalid(
            KEY,
            format!("must hold a mapping under `{kind}`, such as {{x-queue-type: quorum}}"),
        )),
    }
}

/// Converts a configuration value to an AMQP value.
fn field(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Double(number),
            (None, None) => Value::String(number.to_string()),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(field).collect()),
        Json::Object(entries) => Value::Table(
            entries
                .iter()
                .map(|(name, value)| (name.clone(), field(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_come_from_the_configuration() {
        let config = Config::default().with(
            KEY,
            json!({"rpc": {"x-max-priority": 5, "x-queue-type": "classic"}, "events": null}),
        );
        let rpc = configured(&config, "rpc").expect("arguments");
        assert_eq!(
            rpc,
            Table::new()
                .with("x-max-priority", 5)
                .with("x-queue-type", "classic")
        );
        assert!(configured(&config, "events").expect("none").is_empty());
        assert!(
            configured(&Config::default(), "rpc")
                .expect("none")
                .is_empty()
        );
    }

    #[test]
    fn invalid_arguments_are_errors() {
        for (value, told) in [
            (json!([]), "must be a mapping of `rpc` and `events`"),
            (json!({"event": {}}), "has arguments for `event`"),
            (json!({"rpc": 1}), "must hold a mapping under `rpc`"),
        ] {
            let config = Config::default().with(KEY, value);
            let error = configured(&config, "rpc").expect_err(told);
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
