//! Arguments of declarations: what they mean, whether they are valid, whether two declarations agree.

use std::time::Duration;

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::error::{AmqpError, Result};

/// The longest time an argument may name: ten years, in milliseconds, as in RabbitMQ.
const LONGEST: i128 = 315_360_000_000;

/// Arguments that a later declaration of the same queue has to repeat.
const QUEUE_EQUIVALENCE: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-max-priority",
    "x-single-active-consumer",
    "x-queue-type",
];

/// What the arguments of a queue ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueArguments {
    /// `x-expires`: the queue goes when it was unused for so long.
    pub(crate) expires: Option<Duration>,
    /// `x-message-ttl`: a message is dropped when it was ready for so long.
    pub(crate) message_ttl: Option<Duration>,
    /// `x-max-length`: most ready messages.
    pub(crate) max_length: Option<u64>,
    /// `x-max-length-bytes`: most bytes in bodies of ready messages.
    pub(crate) max_length_bytes: Option<u64>,
    /// `x-overflow` is `reject-publish`: a full queue refuses new messages instead of dropping the oldest.
    pub(crate) reject_publish: bool,
}

/// Reads the arguments of a queue; `queue` names it for the error, as in `queue 'q' in vhost '/'`.
pub(crate) fn queue_arguments(arguments: &FieldTable, queue: &str) -> Result<QueueArguments> {
    let invalid = |key: &str, reason: String| {
        AmqpError::precondition_failed(format!("invalid arg '{key}' for {queue}: {reason}"))
    };
    let mut found = QueueArguments::default();
    for (key, value) in arguments {
        let key = key.as_str();
        match key {
            "x-expires" | "x-message-ttl" => {
                let number = integer(value).map_err(|e| invalid(key, e))?;
                let reason = match number {
                    0 if key == "x-expires" => Some("value_zero"),
                    n if n < 0 => Some("value_negative"),
                    n if n > LONGEST => Some("value_too_large"),
                    _ => None,
                };
                if let Some(reason) = reason {
                    return Err(invalid(key, format!("{{{reason},{number}}}")));
                }
                let time = Some(Duration::from_millis(number as u64));
                match key {
                    "x-expires" => found.expires = time,
                    _ => found.message_ttl = time,
                }
            }
            "x-max-length" | "x-max-length-bytes" | "x-max-priority" => {
                let number = integer(value).map_err(|e| invalid(key, e))?;
                let limit = u64::try_from(number)
                    .map_err(|_| invalid(key, format!("{{value_negative,{number}}}")))?;
                match key {
                    "x-max-length" => found.max_length = Some(limit),
                    "x-max-length-bytes" => found.max_length_bytes = Some(limit),
                    _ => return Err(unsupported(key)),
                }
            }
            "x-overflow" => match string(value).map_err(|e| invalid(key, e))? {
                "drop-head" => found.reject_publish = false,
                "reject-publish" => found.reject_publish = true,
                _ => return Err(invalid(key, "invalid_overflow".into())),
            },
            "x-queue-type" => match string(value).map_err(|e| invalid(key, e))? {
                "classic" => {}
                "quorum" | "stream" => {
                    return Err(unsupported("x-queue-type other than 'classic'"));
                }
                other => {
                    return Err(invalid(
                        key,
                        format!("\"unsupported queue type '{other}'\""),
                    ));
                }
            },
            "x-single-active-consumer" if *value == AMQPValue::Boolean(false) => {}
            "x-dead-letter-exchange" | "x-dead-letter-routing-key" | "x-single-active-consumer" => {
                return Err(unsupported(key));
            }
            // RabbitMQ ignores what it does not know as well.
            _ => {}
        }
    }
    Ok(found)
}

/// Checks that a second declaration of a queue gives the arguments of the first.
pub(crate) fn check_queue_equivalence(
    current: &FieldTable,
    received: &FieldTable,
    queue: &str,
) -> Result<()> {
    check_equivalence(current, received, QUEUE_EQUIVALENCE, queue)
}

/// Checks that both tables agree on `keys`; integers of different sizes agree when they are equal.
pub(crate) fn check_equivalence(
    current: &FieldTable,
    received: &FieldTable,
    keys: &[&str],
    name: &str,
) -> Result<()> {
    for key in keys {
        let old = current.inner().get(*key);
        let new = received.inner().get(*key);
        let same = match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => old == new || bare(old) == bare(new),
            // Not said means classic.
            (None, Some(value)) | (Some(value), None) => {
                *key == "x-queue-type" && bare(value) == "classic"
            }
        };
        if !same {
            let (received, current) = match (old, new) {
                (Some(old), Some(new)) => (format!("'{}'", bare(new)), format!("'{}'", bare(old))),
                _ => (described(new), described(old)),
            };
            return Err(inequivalent(key, name, &received, &current));
        }
    }
    Ok(())
}

/// Checks that a flag or type of a second declaration is that of the first.
pub(crate) fn check_same<T: PartialEq + std::fmt::Display>(
    key: &str,
    name: &str,
    current: T,
    received: T,
) -> Result<()> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(
        key,
        name,
        &format!("'{received}'"),
        &format!("'{current}'"),
    ))
}

/// Reads an `expiration` property: milliseconds as text.
pub(crate) fn expiration(text: &str) -> Result<Duration> {
    let refuse = |reason: &str| {
        AmqpError::precondition_failed(format!("invalid expiration '{text}': {reason}"))
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    if end == 0 {
        return Err(refuse("no_integer"));
    }
    if end < digits.len() {
        let left: Vec<String> = digits.as_bytes()[end..].iter().map(u8::to_string).collect();
        return Err(refuse(&format!(
            "{{leftover_string,{}}}",
            erlang_string(&digits[end..], &left)
        )));
    }
    let number: i128 = text.parse().map_err(|_| refuse("{value_too_large}"))?;
    match number {
        n if n < 0 => Err(refuse(&format!("{{value_negative,{n}}}"))),
        n if n > LONGEST => Err(refuse(&format!("{{value_too_large,{n}}}"))),
        n => Ok(Duration::from_millis(n as u64)),
    }
}

/// A string as Erlang prints a list of characters.
fn erlang_string(text: &str, codes: &[String]) -> String {
    if text.bytes().all(|b| (32..127).contains(&b)) {
        format!("{text:?}")
    } else {
        format!("[{}]", codes.join(","))
    }
}

fn inequivalent(key: &str, name: &str, received: &str, current: &str) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "inequivalent arg '{key}' for {name}: received {received} but current is {current}"
    ))
}

/// What this broker lacks is refused, so that nobody waits for something that never happens.
fn unsupported(what: &str) -> AmqpError {
    AmqpError::new(
        crate::error::Code::NotImplemented,
        format!("the embedded broker does not support {what}; use RabbitMQ for it"),
    )
}

fn integer(value: &AMQPValue) -> Result<i128, String> {
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

fn string(value: &AMQPValue) -> Result<&str, String> {
    let bytes = match value {
        AMQPValue::LongString(text) => text.as_bytes(),
        other => return Err(format!("{{unacceptable_type,{}}}", type_name(other))),
    };
    std::str::from_utf8(bytes).map_err(|_| "invalid_utf8".to_owned())
}

/// The name RabbitMQ has for the type of a value.
fn type_name(value: &AMQPValue) -> &'static str {
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

/// A value as text, without its type.
fn bare(value: &AMQPValue) -> String {
    if let Ok(number) = integer(value) {
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

/// A value with its type, or that there is none.
fn described(value: Option<&AMQPValue>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => format!("the value '{}' of type '{}'", bare(value), type_name(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            table.insert((*key).into(), value.clone());
        }
        table
    }

    #[test]
    fn queue_arguments_are_read_whatever_the_size_of_the_integer() {
        for value in [
            AMQPValue::LongInt(100),
            AMQPValue::ShortShortUInt(100),
            AMQPValue::LongLongInt(100),
        ] {
            let read = queue_arguments(
                &table(&[("x-expires", value.clone()), ("x-max-length", value)]),
                "queue 'q'",
            )
            .unwrap();
            assert_eq!(
                (read.expires, read.max_length),
                (Some(Duration::from_millis(100)), Some(100))
            );
        }
    }

    #[test]
    fn invalid_queue_arguments_are_told_as_rabbitmq_does() {
        for (key, value, text) in [
            ("x-expires", AMQPValue::LongInt(0), "{value_zero,0}"),
            (
                "x-expires",
                AMQPValue::LongString("1".into()),
                "\"expected integer, got longstr\"",
            ),
            (
                "x-message-ttl",
                AMQPValue::LongInt(-1),
                "{value_negative,-1}",
            ),
            (
                "x-message-ttl",
                AMQPValue::LongLongInt(315_360_000_001),
                "{value_too_large,315360000001}",
            ),
            (
                "x-max-length",
                AMQPValue::LongInt(-2),
                "{value_negative,-2}",
            ),
            (
                "x-overflow",
                AMQPValue::LongString("no".into()),
                "invalid_overflow",
            ),
        ] {
            let error =
                queue_arguments(&table(&[(key, value)]), "queue 'q' in vhost '/'").unwrap_err();
            assert_eq!(
                error.text,
                format!("invalid arg '{key}' for queue 'q' in vhost '/': {text}")
            );
        }
    }

    #[test]
    fn declarations_agree_on_values_not_on_sizes() {
        let check = |old: &[(&str, AMQPValue)], new: &[(&str, AMQPValue)]| {
            check_queue_equivalence(&table(old), &table(new), "queue 'q' in vhost '/'")
                .map_err(|e| e.text)
        };
        let ttl = |n| ("x-message-ttl", AMQPValue::LongInt(n));
        assert_eq!(
            check(&[ttl(5)], &[("x-message-ttl", AMQPValue::LongLongInt(5))]),
            Ok(())
        );
        assert_eq!(check(&[], &[("x-mine", AMQPValue::Void)]), Ok(()));
        assert_eq!(
            check(
                &[],
                &[("x-queue-type", AMQPValue::LongString("classic".into()))]
            ),
            Ok(())
        );
        assert_eq!(
            check(&[ttl(5)], &[ttl(6)]).unwrap_err(),
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '6' but current is '5'"
        );
        assert_eq!(
            check(&[ttl(5)], &[]).unwrap_err(),
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'"
        );
    }

    #[test]
    fn expirations() {
        assert_eq!(expiration("10000"), Ok(Duration::from_secs(10)));
        assert_eq!(expiration("0"), Ok(Duration::ZERO));
        for (text, reason) in [
            ("abc", "no_integer"),
            ("", "no_integer"),
            ("-5", "{value_negative,-5}"),
            ("5s", "{leftover_string,\"s\"}"),
            ("1.5", "{leftover_string,\".5\"}"),
            ("315360000001", "{value_too_large,315360000001}"),
        ] {
            assert_eq!(
                expiration(text).unwrap_err().text,
                format!("invalid expiration '{text}': {reason}")
            );
        }
    }
}
