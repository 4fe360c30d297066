//! History of a dead letter: the headers `x-death`, `x-first-death-*` and `x-last-death-*`, as in
//! RabbitMQ 4.

use amq_protocol::types::{AMQPValue, FieldArray};

use crate::{field_values::as_integer, headers::Headers};

/// Header with one entry per queue and reason, most recent first.
const X_DEATH: &str = "x-death";

/// Reason for which a message left a queue unacknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Rejected by a consumer.
    Rejected,
    /// Expired while ready.
    Expired,
    /// Dropped or rejected by a full queue.
    MaxLength,
    /// Requeued more often than `x-delivery-limit` allows.
    DeliveryLimit,
}

/// A death of a message.
#[derive(Clone, Debug)]
pub(crate) struct Death<'a> {
    pub(crate) reason: Reason,
    pub(crate) queue: &'a str,
    pub(crate) exchange: &'a str,
    /// The routing key and the keys of the `CC` header.
    pub(crate) keys: Vec<&'a str>,
    /// The `expiration` property at the time of death.
    pub(crate) expiration: Option<&'a str>,
    /// Unix time in seconds.
    pub(crate) time: u64,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// Records a death in the headers. A repeated death in the same queue for the same reason
/// increments the count of its entry and moves it to the front.
///
/// `died_before` is whether the broker recorded a death of the message before. Otherwise a client
/// sent the headers, and they are replaced.
pub(crate) fn record(headers: &mut Headers, death: &Death<'_>, died_before: bool) {
    let mut entries = match headers.remove(X_DEATH) {
        Some(AMQPValue::FieldArray(entries)) if died_before => entries.as_slice().to_vec(),
        _ => Vec::new(),
    };
    let known = entries.iter().position(|entry| is_entry_of(entry, death));
    let latest = match known.map(|index| entries.remove(index)) {
        Some(AMQPValue::FieldTable(entry)) => increment_count(entry.inner().clone()),
        _ => new_entry(death),
    };
    entries.insert(0, AMQPValue::FieldTable(latest.into()));
    headers.insert(X_DEATH.into(), AMQPValue::FieldArray(entries.into()));
    for (field, value) in [
        ("reason", death.reason.name()),
        ("queue", death.queue),
        ("exchange", death.exchange),
    ] {
        if !died_before {
            headers.insert(format!("x-first-death-{field}").into(), long_string(value));
        }
        headers.insert(format!("x-last-death-{field}").into(), long_string(value));
    }
}

/// Returns whether a message would return to a queue that it has died in, without being rejected by
/// a consumer in between.
pub(crate) fn is_cycle(headers: &Headers, queue: &str) -> bool {
    let Some(AMQPValue::FieldArray(entries)) = headers.get(X_DEATH) else {
        return false;
    };
    for entry in entries.as_slice() {
        let AMQPValue::FieldTable(entry) = entry else {
            return false;
        };
        if has_text(entry.inner(), "reason", Reason::Rejected.name()) {
            return false;
        }
        if has_text(entry.inner(), "queue", queue) {
            return true;
        }
    }
    false
}

/// Returns whether an entry counts the deaths in the same queue for the same reason.
fn is_entry_of(entry: &AMQPValue, death: &Death<'_>) -> bool {
    let AMQPValue::FieldTable(entry) = entry else {
        return false;
    };
    has_text(entry.inner(), "queue", death.queue)
        && has_text(entry.inner(), "reason", death.reason.name())
}

fn increment_count(mut entry: Headers) -> Headers {
    let count = entry.get("count").and_then(|count| as_integer(count).ok());
    let count = count.map_or(1, |count| i64::try_from(count + 1).unwrap_or(i64::MAX));
    entry.insert("count".into(), AMQPValue::LongLongInt(count));
    entry
}

fn new_entry(death: &Death<'_>) -> Headers {
    let mut keys = FieldArray::default();
    for key in &death.keys {
        keys.push(long_string(key));
    }
    let mut entry = Headers::from([
        ("count".into(), AMQPValue::LongLongInt(1)),
        ("reason".into(), long_string(death.reason.name())),
        ("queue".into(), long_string(death.queue)),
        ("time".into(), AMQPValue::Timestamp(death.time)),
        ("exchange".into(), long_string(death.exchange)),
        ("routing-keys".into(), AMQPValue::FieldArray(keys)),
    ]);
    if let Some(expiration) = death.expiration {
        entry.insert("original-expiration".into(), long_string(expiration));
    }
    entry
}

fn has_text(entry: &Headers, key: &str, expected: &str) -> bool {
    matches!(entry.get(key), Some(AMQPValue::LongString(text)) if text.as_bytes() == expected.as_bytes())
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(queue: &'static str, reason: Reason) -> Death<'static> {
        Death {
            reason,
            queue,
            exchange: "x",
            keys: vec!["k"],
            expiration: None,
            time: 1,
        }
    }

    fn recorded(headers: &Headers) -> Vec<(String, String, i128)> {
        let Some(AMQPValue::FieldArray(entries)) = headers.get(X_DEATH) else {
            panic!("{headers:?}");
        };
        let entry = |entry: &AMQPValue| {
            let AMQPValue::FieldTable(table) = entry else {
                panic!("{entry:?}");
            };
            let word = |key: &str| match table.inner().get(key) {
                Some(AMQPValue::LongString(text)) => text.to_string(),
                other => panic!("{other:?}"),
            };
            let count = as_integer(&table.inner()["count"]).unwrap();
            (word("queue"), word("reason"), count)
        };
        entries.as_slice().iter().map(entry).collect()
    }

    fn entry(queue: &str, reason: Reason, count: i128) -> (String, String, i128) {
        (queue.into(), reason.name().into(), count)
    }

    #[test]
    fn deaths_of_one_queue_and_reason_are_one_entry() {
        use Reason::{Expired, Rejected};
        let mut headers = Headers::new();
        for (queue, reason) in [
            ("a", Rejected),
            ("b", Expired),
            ("a", Rejected),
            ("a", Expired),
        ] {
            let died_before = !headers.is_empty();
            record(&mut headers, &death(queue, reason), died_before);
        }
        let expected = [
            entry("a", Expired, 1),
            entry("a", Rejected, 2),
            entry("b", Expired, 1),
        ];
        assert_eq!(recorded(&headers), expected);
        assert_eq!(headers["x-first-death-reason"], long_string("rejected"));
        assert_eq!(headers["x-last-death-reason"], long_string("expired"));
    }

    #[test]
    fn headers_sent_by_clients_are_replaced() {
        let mut headers = Headers::new();
        record(&mut headers, &death("a", Reason::Expired), false);
        record(&mut headers, &death("b", Reason::Rejected), false);
        assert_eq!(recorded(&headers), [entry("b", Reason::Rejected, 1)]);
        assert_eq!(headers["x-first-death-queue"], long_string("b"));
    }

    #[test]
    fn only_automatic_deaths_make_a_cycle() {
        use Reason::{Expired, MaxLength, Rejected};
        let after = |deaths: &[(&'static str, Reason)]| {
            let mut headers = Headers::new();
            for (queue, reason) in deaths {
                let died_before = !headers.is_empty();
                record(&mut headers, &death(queue, *reason), died_before);
            }
            headers
        };
        assert!(is_cycle(&after(&[("a", Expired)]), "a"));
        assert!(is_cycle(&after(&[("a", Expired), ("b", MaxLength)]), "a"));
        assert!(!is_cycle(&after(&[("a", Expired), ("b", Expired)]), "c"));
        assert!(!is_cycle(&after(&[("a", Rejected), ("b", Expired)]), "a"));
        assert!(!is_cycle(&Headers::new(), "a"));
    }
}
