//! Parsing and validation of queue and consumer arguments.

use std::time::Duration;

use amq_protocol::types::FieldTable;

use crate::{
    error::{AmqpError, Result},
    field_values::{as_bool, as_integer, as_string, type_name},
    name::Name,
};

/// Argument with the type of a queue. As in RabbitMQ 4, queues declared without it have it too.
pub(crate) const QUEUE_TYPE: &str = "x-queue-type";

/// Upper bound of durations in arguments: ten years, as in RabbitMQ.
const MAX_DURATION_MILLIS: i128 = 315_360_000_000;

/// Delivery limit of quorum queues that are declared without one, as in RabbitMQ 4.
const DEFAULT_DELIVERY_LIMIT: u64 = 20;

/// Arguments of classic queues, in the order in which RabbitMQ compares them on redeclaration.
const CLASSIC_ARGUMENTS: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
];

/// Arguments of quorum queues.
const QUORUM_ARGUMENTS: &[&str] = &[
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
];

/// Arguments that only streams accept.
const STREAM_ARGUMENTS: &[&str] = &[
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
];

/// Order in which RabbitMQ validates arguments.
const VALIDATION_ORDER: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-quorum-initial-group-size",
    "x-queue-leader-locator",
    "x-delivery-limit",
];

/// Queue type, from `x-queue-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueueKind {
    #[default]
    Classic,
    /// Held in memory like a classic queue; semantics visible to clients follow RabbitMQ.
    Quorum,
}

/// Policy of a full queue, from `x-overflow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// Drops the oldest message.
    #[default]
    DropHead,
    /// Rejects the new message.
    Reject,
    /// Rejects and dead-letters the new message.
    RejectToDeadLetters,
}

/// Destination of a queue's dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetterTarget {
    /// `x-dead-letter-exchange`. Dead letters are dropped while the exchange does not exist.
    pub(crate) exchange: Name,
    /// `x-dead-letter-routing-key`. `None` keeps the routing key of the message.
    pub(crate) key: Option<Name>,
}

/// Parsed arguments of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueArguments {
    pub(crate) kind: QueueKind,
    /// `x-expires`: lifetime of an unused queue.
    pub(crate) expires: Option<Duration>,
    /// `x-message-ttl`: time that a message may stay ready.
    pub(crate) message_ttl: Option<Duration>,
    pub(crate) dead_letter_target: Option<DeadLetterTarget>,
    /// `x-max-length`: maximum number of ready messages.
    pub(crate) max_length: Option<u64>,
    /// `x-max-length-bytes`: maximum total body size of ready messages.
    pub(crate) max_length_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    /// `x-max-priority`. Higher message priorities are capped to it.
    pub(crate) max_priority: u8,
    /// `x-single-active-consumer`: one consumer receives all messages, the others are on standby.
    pub(crate) single_active: bool,
    /// `x-delivery-limit`: maximum number of requeues; the next one dead-letters the message. Only
    /// of quorum queues, where it defaults to [`DEFAULT_DELIVERY_LIMIT`]; -1 is unlimited.
    pub(crate) delivery_limit: Option<u64>,
}

impl QueueKind {
    /// Parses the type of a queue. RabbitMQ validates this argument before all others.
    pub(crate) fn from_arguments(arguments: &FieldTable, queue: &str) -> Result<Self> {
        let Some(value) = arguments.inner().get(QUEUE_TYPE) else {
            return Ok(Self::default());
        };
        match as_string(value).map_err(|reason| invalid(QUEUE_TYPE, queue, &reason))? {
            "classic" => Ok(Self::Classic),
            "quorum" => Ok(Self::Quorum),
            "stream" => Err(AmqpError::not_implemented(
                "the embedded broker has no streams (x-queue-type 'stream'); use RabbitMQ for them",
            )),
            other => {
                let reason = format!("\"unsupported queue type '{other}'\"");
                Err(invalid(QUEUE_TYPE, queue, &reason))
            }
        }
    }

    /// Returns the value of `x-queue-type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// Returns RabbitMQ's module name of the type, which reply texts contain.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }

    /// Returns the arguments that the type supports and that a redeclaration must repeat.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Classic => CLASSIC_ARGUMENTS,
            Self::Quorum => QUORUM_ARGUMENTS,
        }
    }
}

impl QueueArguments {
    /// Parses and validates the arguments of a queue. `queue` names it in error texts, such as
    /// `queue 'q' in vhost '/'`.
    pub(crate) fn read(arguments: &FieldTable, queue: &str) -> Result<Self> {
        if let Some(exchange) = arguments.inner().get("x-dead-letter-exchange")
            && as_string(exchange).is_err()
        {
            return Err(AmqpError::precondition_failed(format!(
                "invalid type '{}' for arg 'x-dead-letter-exchange' in {queue}",
                type_name(exchange)
            )));
        }
        let kind = QueueKind::from_arguments(arguments, queue)?;
        let mut read = Self {
            kind,
            delivery_limit: match kind {
                QueueKind::Classic => None,
                QueueKind::Quorum => Some(DEFAULT_DELIVERY_LIMIT),
            },
            ..Self::default()
        };
        let own = kind.arguments();
        for key in VALIDATION_ORDER.iter().filter(|key| own.contains(key)) {
            if arguments.contains_key(key) {
                read.apply(key, arguments)
                    .map_err(|reason| invalid(key, queue, &reason))?;
            }
        }
        let foreign = |key: &str| {
            !own.contains(&key)
                && (CLASSIC_ARGUMENTS.contains(&key)
                    || QUORUM_ARGUMENTS.contains(&key)
                    || STREAM_ARGUMENTS.contains(&key))
        };
        // Like RabbitMQ, ignores arguments that no queue type supports.
        match arguments.inner().keys().find(|key| foreign(key.as_str())) {
            Some(key) => Err(wrong_queue_type(key.as_str(), queue, kind)),
            None => Ok(read),
        }
    }

    /// Applies one argument if it is present. The error is RabbitMQ's reason.
    fn apply(&mut self, key: &str, arguments: &FieldTable) -> Result<(), String> {
        let Some(value) = arguments.inner().get(key) else {
            return Ok(());
        };
        match key {
            "x-expires" => {
                not_zero(as_integer(value)?)?;
                self.expires = Some(millis(as_integer(value)?)?);
            }
            "x-message-ttl" => self.message_ttl = Some(millis(as_integer(value)?)?),
            "x-dead-letter-exchange" => {
                self.dead_letter_target = Some(DeadLetterTarget {
                    exchange: as_string(value)?.into(),
                    key: None,
                });
            }
            "x-dead-letter-routing-key" => match &mut self.dead_letter_target {
                Some(target) => target.key = Some(as_string(value)?.into()),
                None => {
                    as_string(value)?;
                    return Err("routing_key_but_no_dlx_defined".into());
                }
            },
            // Equivalent here: a dead letter is enqueued before any other operation runs.
            "x-dead-letter-strategy" => check_one_of(
                value,
                &["at-most-once", "at-least-once"],
                "invalid_dlx_strategy",
            )?,
            "x-max-length" => self.max_length = Some(size(as_integer(value)?)?),
            "x-max-length-bytes" => self.max_length_bytes = Some(size(as_integer(value)?)?),
            "x-max-in-memory-length" | "x-max-in-memory-bytes" => {
                size(as_integer(value)?)?;
            }
            "x-max-priority" => {
                let most = size(as_integer(value)?)?;
                self.max_priority =
                    u8::try_from(most).map_err(|_| format!("{{max_value_exceeded,{most}}}"))?;
            }
            "x-overflow" => {
                self.overflow = match (as_string(value)?, self.kind) {
                    ("drop-head", _) => Overflow::DropHead,
                    ("reject-publish", _) => Overflow::Reject,
                    ("reject-publish-dlx", QueueKind::Classic) => Overflow::RejectToDeadLetters,
                    // RabbitMQ only logs this combination.
                    ("reject-publish-dlx", QueueKind::Quorum) => Overflow::DropHead,
                    _ => return Err("invalid_overflow".into()),
                };
            }
            // There is only one storage mode: memory.
            "x-queue-mode" => match as_string(value)? {
                "default" | "lazy" => {}
                other => return Err(format!("\"unsupported queue mode '{other}'\"")),
            },
            "x-queue-version" => match size(as_integer(value)?)? {
                1 | 2 => {}
                other => return Err(format!("\"unsupported queue version '{other}'\"")),
            },
            "x-single-active-consumer" => self.single_active = as_bool(value)?,
            "x-quorum-initial-group-size" => {
                size(as_integer(value)?)?;
                not_zero(as_integer(value)?)?;
            }
            "x-queue-leader-locator" => check_one_of(
                value,
                &["client-local", "balanced", "random", "least-leaders"],
                "invalid_queue_locator_arg",
            )?,
            // RabbitMQ does not validate the value: one without a meaning sets no limit.
            "x-delivery-limit" => {
                let limit = as_integer(value).ok();
                self.delivery_limit = limit.and_then(|limit| u64::try_from(limit).ok());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Parses `x-priority` from the arguments of a consumer. Higher is first; the default is 0.
pub(crate) fn consumer_priority(
    arguments: &FieldTable,
    queue: &str,
    kind: QueueKind,
) -> Result<i64> {
    let mut priority = 0;
    if let Some(value) = arguments.inner().get("x-priority") {
        let number = as_integer(value).map_err(|reason| invalid("x-priority", queue, &reason))?;
        // No integer of a field table exceeds `i64::MAX`.
        priority = i64::try_from(number).unwrap_or(i64::MAX);
    }
    for key in ["x-stream-offset", "x-stream-filter"] {
        if arguments.contains_key(key) {
            return Err(wrong_queue_type(key, queue, kind));
        }
    }
    Ok(priority)
}

/// Parses the `expiration` property, a decimal number of milliseconds.
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
    millis(number).map_err(|reason| refuse(&reason))
}

/// Formats a string as Erlang prints a list of characters.
fn erlang_string(text: &str, codes: &[String]) -> String {
    if text.bytes().all(|b| (32..127).contains(&b)) {
        format!("{text:?}")
    } else {
        format!("[{}]", codes.join(","))
    }
}

/// Converts milliseconds to a duration, within RabbitMQ's limits.
fn millis(number: i128) -> Result<Duration, String> {
    match number {
        n if n < 0 => Err(format!("{{value_negative,{n}}}")),
        n if n > MAX_DURATION_MILLIS => Err(format!("{{value_too_large,{n}}}")),
        n => Ok(Duration::from_millis(n as u64)),
    }
}

fn size(number: i128) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn not_zero(number: i128) -> Result<(), String> {
    match number {
        0 => Err("{value_zero,0}".into()),
        _ => Ok(()),
    }
}

fn check_one_of(
    value: &amq_protocol::types::AMQPValue,
    known: &[&str],
    otherwise: &str,
) -> Result<(), String> {
    if known.contains(&as_string(value)?) {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

fn invalid(key: &str, queue: &str, reason: &str) -> AmqpError {
    AmqpError::precondition_failed(format!("invalid arg '{key}' for {queue}: {reason}"))
}

fn wrong_queue_type(key: &str, queue: &str, kind: QueueKind) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "invalid arg '{key}' for {queue} of queue type {}",
        kind.module()
    ))
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::AMQPValue;

    use super::*;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            table.insert((*key).into(), value.clone());
        }
        table
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn integers_of_any_width_are_accepted() {
        for value in [
            AMQPValue::LongInt(100),
            AMQPValue::ShortShortUInt(100),
            AMQPValue::LongLongInt(100),
        ] {
            let read = QueueArguments::read(
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
    fn invalid_arguments_get_rabbitmqs_error_texts() {
        let int = AMQPValue::LongInt;
        for (key, value, reason) in [
            ("x-expires", int(0), "{value_zero,0}"),
            ("x-expires", text("1"), "\"expected integer, got longstr\""),
            ("x-message-ttl", int(-1), "{value_negative,-1}"),
            (
                "x-message-ttl",
                AMQPValue::LongLongInt(315_360_000_001),
                "{value_too_large,315360000001}",
            ),
            ("x-max-length", int(-2), "{value_negative,-2}"),
            ("x-max-priority", int(256), "{max_value_exceeded,256}"),
            ("x-overflow", text("no"), "invalid_overflow"),
            ("x-overflow", int(1), "{unacceptable_type,signedint}"),
            (
                "x-dead-letter-routing-key",
                text("k"),
                "routing_key_but_no_dlx_defined",
            ),
            (
                "x-queue-mode",
                text("eager"),
                "\"unsupported queue mode 'eager'\"",
            ),
            (
                "x-queue-version",
                int(3),
                "\"unsupported queue version '3'\"",
            ),
            (
                "x-queue-type",
                text("odd"),
                "\"unsupported queue type 'odd'\"",
            ),
        ] {
            let error = QueueArguments::read(&table(&[(key, value)]), "queue 'q' in vhost '/'")
                .unwrap_err();
            assert_eq!(
                error.text,
                format!("invalid arg '{key}' for queue 'q' in vhost '/': {reason}")
            );
        }
    }

    #[test]
    fn arguments_of_another_queue_type_are_refused() {
        let limit = ("x-delivery-limit", AMQPValue::LongInt(2));
        let quorum = ("x-queue-type", text("quorum"));
        let read = QueueArguments::read(&table(&[quorum.clone(), limit.clone()]), "queue 'q'");
        assert_eq!(read.unwrap().delivery_limit, Some(2));
        let refused = |entries: &[(&str, AMQPValue)]| {
            QueueArguments::read(&table(entries), "queue 'q'")
                .unwrap_err()
                .text
        };
        assert_eq!(
            refused(&[limit]),
            "invalid arg 'x-delivery-limit' for queue 'q' of queue type rabbit_classic_queue"
        );
        assert_eq!(
            refused(&[quorum, ("x-max-priority", AMQPValue::LongInt(5))]),
            "invalid arg 'x-max-priority' for queue 'q' of queue type rabbit_quorum_queue"
        );
    }

    #[test]
    fn expiration_is_parsed_as_rabbitmq_does() {
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
