//! Conversion between AMQP tables or properties and JSON.

use amq_protocol::{
    protocol::basic::AMQPProperties,
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};
use serde_json::{Map, Number, Value, json};

use super::response::{ApiResponse, Result};
use crate::{
    depth_limit::MAX_DEPTH,
    field_values::{as_integer, display_value},
};

/// Converts a field of a request body to a table; an absent field is an empty table.
pub(super) fn table_from_json(value: Option<&Value>) -> Result<FieldTable> {
    match value {
        None => Ok(FieldTable::default()),
        Some(Value::Object(fields)) => object_to_table(fields, MAX_DEPTH),
        Some(other) => Err(ApiResponse::bad_request(json!(["not_an_object", other]))),
    }
}

/// Converts a table to JSON.
pub(super) fn table_to_json(table: &FieldTable) -> Value {
    let fields = table.inner().iter();
    Value::Object(
        fields
            .map(|(key, value)| (key.to_string(), value_to_json(value)))
            .collect(),
    )
}

/// Converts a field of a request body to properties. Like RabbitMQ, ignores unknown ones.
pub(super) fn properties_from_json(value: Option<&Value>) -> Result<AMQPProperties> {
    let fields = match value {
        None => return Ok(AMQPProperties::default()),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(ApiResponse::bad_request(json!(["not_an_object", other]))),
    };
    let mut properties = AMQPProperties::default();
    macro_rules! take {
        ($($name:literal $with:ident $read:ident),*) => {
            $(if let Some(value) = fields.get($name) {
                properties = properties.$with($read($name, value)?);
            })*
        };
    }
    take!(
        "content_type" with_content_type short,
        "content_encoding" with_content_encoding short,
        "delivery_mode" with_delivery_mode int,
        "priority" with_priority int,
        "correlation_id" with_correlation_id short,
        "reply_to" with_reply_to short,
        "expiration" with_expiration short,
        "message_id" with_message_id short,
        "timestamp" with_timestamp int,
        "type" with_type short,
        "user_id" with_user_id short,
        "app_id" with_app_id short,
        "cluster_id" with_cluster_id short
    );
    if let Some(headers) = fields.get("headers") {
        properties = properties.with_headers(table_from_json(Some(headers))?);
    }
    Ok(properties)
}

/// Converts properties to JSON. Like RabbitMQ, writes an empty list if there are none.
pub(super) fn properties_to_json(properties: &AMQPProperties) -> Value {
    let mut fields = Map::new();
    macro_rules! put {
        ($($name:literal $get:ident $write:expr),*) => {
            $(if let Some(value) = properties.$get() {
                fields.insert($name.to_owned(), $write(value));
            })*
        };
    }
    let text = |text: &ShortString| Value::from(text.as_str());
    put!(
        "content_type" content_type text,
        "content_encoding" content_encoding text,
        "headers" headers table_to_json,
        "delivery_mode" delivery_mode |n: &u8| Value::from(*n),
        "priority" priority |n: &u8| Value::from(*n),
        "correlation_id" correlation_id text,
        "reply_to" reply_to text,
        "expiration" expiration text,
        "message_id" message_id text,
        "timestamp" timestamp |n: &u64| Value::from(*n),
        "type" kind text,
        "user_id" user_id text,
        "app_id" app_id text,
        "cluster_id" cluster_id text
    );
    match fields.is_empty() {
        true => json!([]),
        false => Value::Object(fields),
    }
}

fn object_to_table(fields: &Map<String, Value>, depth: usize) -> Result<FieldTable> {
    let mut table = FieldTable::default();
    for (key, value) in fields {
        let name = ShortString::try_new(key.as_str())
            .map_err(|_| ApiResponse::bad_request(json!(["key_too_long", key])))?;
        table.insert(name, value_from_json(value, depth)?);
    }
    Ok(table)
}

/// Converts JSON to field values, with the types that RabbitMQ uses.
fn value_from_json(value: &Value, depth: usize) -> Result<AMQPValue> {
    let inner = depth
        .checked_sub(1)
        .ok_or_else(|| ApiResponse::bad_request("nested_too_deep"))?;
    Ok(match value {
        Value::Null => return Err(ApiResponse::bad_request("null_not_allowed")),
        Value::Bool(is) => AMQPValue::Boolean(*is),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AMQPValue::LongLongInt(whole),
            (None, Some(float)) if !number.is_u64() => AMQPValue::Double(float),
            _ => return Err(ApiResponse::bad_request(json!(["number_too_large", value]))),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => {
            let mut array = FieldArray::default();
            for value in values {
                array.push(value_from_json(value, inner)?);
            }
            AMQPValue::FieldArray(array)
        }
        Value::Object(fields) => AMQPValue::FieldTable(object_to_table(fields, inner)?),
    })
}

fn value_to_json(value: &AMQPValue) -> Value {
    let float = |float: f64| Number::from_f64(float).map_or(Value::Null, Value::Number);
    if let Some(whole) = as_integer(value).ok().and_then(Number::from_i128) {
        return Value::Number(whole);
    }
    match value {
        AMQPValue::Boolean(is) => (*is).into(),
        AMQPValue::Timestamp(n) => (*n).into(),
        AMQPValue::Float(n) => float((*n).into()),
        AMQPValue::Double(n) => float(*n),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(values) => {
            Value::Array(values.as_slice().iter().map(value_to_json).collect())
        }
        AMQPValue::FieldTable(table) => table_to_json(table),
        AMQPValue::Void => Value::Null,
        other => display_value(other).into(),
    }
}

fn short(name: &str, value: &Value) -> Result<ShortString> {
    value
        .as_str()
        .and_then(|text| ShortString::try_new(text).ok())
        .ok_or_else(|| ApiResponse::bad_request(json!(["not_short_string", name])))
}

fn int<T: TryFrom<u64>>(name: &str, value: &Value) -> Result<T> {
    value
        .as_u64()
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| ApiResponse::bad_request(json!(["not_int", name])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates values that RabbitMQ accepts: no null, integers within 64 bits.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|n: f64| Value::from(n + 0.5)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{1,8}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn headers_round_trip(value in values()) {
            let given = json!({"headers": {"x": value}});
            let properties = properties_from_json(Some(&given)).unwrap();
            prop_assert_eq!(properties_to_json(&properties), given);
        }
    }

    #[test]
    fn values_without_an_amqp_equivalent_are_refused() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        for wrong in [
            json!({"a": null}),
            json!({"a": u64::MAX}),
            json!([1]),
            json!({"a": deep}),
            json!({"k".repeat(256): 1}),
        ] {
            assert!(table_from_json(Some(&wrong)).is_err(), "{wrong}");
        }
        for wrong in [
            json!({"priority": "5"}),
            json!({"priority": 256}),
            json!({"app_id": 1}),
            json!({"app_id": "a".repeat(256)}),
            json!([]),
        ] {
            assert!(properties_from_json(Some(&wrong)).is_err(), "{wrong}");
        }
        assert_eq!(properties_to_json(&AMQPProperties::default()), json!([]));
    }
}
