//! Comparison and formatting of field values, as in RabbitMQ.

use amq_protocol::types::AMQPValue;

/// Reads an integer of any width. The error is RabbitMQ's text for other types.
pub(crate) fn as_integer(value: &AMQPValue) -> Result<i128, String> {
    Ok(match value {
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => (*n).into(),
        other => return Err(format!("\"expected integer, got {}\"", type_name(other))),
    })
}

/// Reads a string. The error is RabbitMQ's text for other types.
pub(crate) fn as_string(value: &AMQPValue) -> Result<&str, String> {
    let bytes = match value {
        AMQPValue::LongString(text) => text.as_bytes(),
        other => return Err(unacceptable(other)),
    };
    std::str::from_utf8(bytes).map_err(|_| "invalid_utf8".to_owned())
}

/// Reads a boolean. The error is RabbitMQ's text for other types.
pub(crate) fn as_bool(value: &AMQPValue) -> Result<bool, String> {
    match value {
        AMQPValue::Boolean(is) => Ok(*is),
        other => Err(unacceptable(other)),
    }
}

/// Compares two arguments of declarations; numbers are compared by value.
pub(crate) fn values_equal(a: &AMQPValue, b: &AMQPValue) -> bool {
    match (float(a), float(b)) {
        (Some(a), Some(b)) => a == b,
        _ => same_value(a, b),
    }
}

/// Compares a header with an argument of a binding; integers of any width and floats of any width
/// are compared by value, but never an integer with a float.
pub(crate) fn same_value(a: &AMQPValue, b: &AMQPValue) -> bool {
    match (as_integer(a), as_integer(b)) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), Err(_)) => match (float(a), float(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        _ => false,
    }
}

/// Returns RabbitMQ's name for the type of a value.
pub(crate) fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) => "shortstr",
        AMQPValue::LongString(_) => "longstr",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Void => "void",
    }
}

/// Formats a value without its type.
pub(crate) fn display_value(value: &AMQPValue) -> String {
    if let Ok(number) = as_integer(value) {
        return number.to_string();
    }
    match value {
        AMQPValue::Boolean(b) => b.to_string(),
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Timestamp(n) => n.to_string(),
        other => format!("{other:?}"),
    }
}

/// Formats a value with its type, or `none`.
pub(crate) fn describe_value(value: Option<&AMQPValue>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => format!(
            "the value '{}' of type '{}'",
            display_value(value),
            type_name(value)
        ),
    }
}

fn unacceptable(value: &AMQPValue) -> String {
    format!("{{unacceptable_type,{}}}", type_name(value))
}

/// Reads a number as a float. Integers beyond 32 bits are excluded, since they may lose precision.
fn float(value: &AMQPValue) -> Option<f64> {
    match value {
        AMQPValue::Float(n) => Some((*n).into()),
        AMQPValue::Double(n) => Some(*n),
        other => {
            let number = as_integer(other).ok()?;
            i32::try_from(number).ok().map(f64::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_and_other_types_by_type_and_value() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        for (a, b, expected) in [
            (AMQPValue::LongInt(5), AMQPValue::LongLongInt(5), true),
            (AMQPValue::LongInt(5), AMQPValue::Double(5.0), true),
            (AMQPValue::Float(0.5), AMQPValue::Double(0.5), true),
            (AMQPValue::LongInt(5), AMQPValue::LongInt(6), false),
            (AMQPValue::LongInt(5), text("5"), false),
            (AMQPValue::Boolean(true), text("true"), false),
            (text("a"), text("a"), true),
        ] {
            assert_eq!(values_equal(&a, &b), expected, "{a:?} {b:?}");
        }
        for (a, b, expected) in [
            (AMQPValue::LongInt(5), AMQPValue::LongLongInt(5), true),
            (AMQPValue::LongInt(5), AMQPValue::Double(5.0), false),
            (AMQPValue::Float(0.5), AMQPValue::Double(0.5), true),
            (AMQPValue::LongInt(5), text("5"), false),
            (text("a"), text("a"), true),
        ] {
            assert_eq!(same_value(&a, &b), expected, "{a:?} {b:?}");
        }
    }
}
