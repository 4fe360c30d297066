//! History of a dead letter: the headers `x-death` and `x-first-death-*`, as in RabbitMQ 3.10.

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
pub(crate) fn record(headers: &mut Headers, death: &Death<'_>) {
    let before = match headers.get(X_DEATH) {
        None => {
            for (key, value) in [
                ("x-first-death-reason", death.reason.name()),
                ("x-first-death-queue", death.queue),
                ("x-first-death-exchange", death.exchange),
            ] {
                headers.insert(key.into(), long_string(value));
            }
            Vec::new()
        }
        Some(AMQPValue::FieldArray(entries)) => group_entries(entries),
        // Not a list, so it is replaced.
        Some(_) => Vec::new(),
    };
    let (same, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|entry| {
        has_text(entry, "queue", death.queue) && has_text(entry, "reason", death.reason.name())
    });
    let latest = match same.into_iter().next() {
        Some(mut entry) => {
            let count = entry.get("count").and_then(|count| as_integer(count).ok());
            let count = count.map_or(1, |count| i64::try_from(count + 1).unwrap_or(i64::MAX));
            entry.insert("count".into(), AMQPValue::LongLongInt(count));
            entry
        }
        None => new_entry(death),
    };
    let mut entries = FieldArray::default();
    for entry in std::iter::once(latest).chain(others) {
        entries.push(AMQPValue::FieldTable(entry.into()));
    }
    headers.insert(X_DEATH.into(), AMQPValue::FieldArray(entries));
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

/// Merges entries of the same queue and reason, which clients can forge, into one with a count. As
/// in RabbitMQ, this reverses the list.
fn group_entries(entries: &FieldArray) -> Vec<Headers> {
    let tables: Vec<&Headers> = entries
        .as_slice()
        .iter()
        .filter_map(|entry| match entry {
            AMQPValue::FieldTable(table) => Some(table.inner()),
            _ => None,
        })
        .collect();
    if let [one] = &tables[..] {
        return vec![(*one).clone()];
    }
    let mut groups: Vec<(Headers, i64)> = Vec::new();
    for table in tables {
        let key = |table: &Headers| (table.get("queue").cloned(), table.get("reason").cloned());
        match groups
            .iter_mut()
            .find(|(known, _)| key(known) == key(table))
        {
            Some((_, count)) => *count += 1,
            None => groups.push((table.clone(), 1)),
        }
    }
    groups
        .into_iter()
        .rev()
        .map(|(mut table, count)| {
            table
                .entry("count".into())
                .or_insert(AMQPValue::LongLongInt(count));
            table
        })
        .collect()
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
            record(&mut headers, &death(queue, reason));
        }
        let expected = [
            entry("a", Expired, 1),
            entry("b", Expired, 1),
            entry("a", Rejected, 2),
        ];
        assert_eq!(recorded(&headers), expected);
        assert_eq!(headers["x-first-death-reason"], long_string("rejected"));
    }

    #[test]
    fn forged_entries_are_merged_or_ignored() {
        let same = || {
            AMQPValue::FieldTable(
                Headers::from([
                    ("queue".into(), long_string("a")),
                    ("reason".into(), long_string("expired")),
                ])
                .into(),
            )
        };
        let made = vec![
            AMQPValue::Boolean(true),
            same(),
            same(),
            AMQPValue::FieldTable(Headers::new().into()),
        ];
        let mut headers = Headers::from([(X_DEATH.into(), AMQPValue::FieldArray(made.into()))]);
        record(&mut headers, &death("a", Reason::Expired));
        let Some(AMQPValue::FieldArray(entries)) = headers.get(X_DEATH) else {
            panic!("{headers:?}");
        };
        assert_eq!(entries.as_slice().len(), 2);
        let AMQPValue::FieldTable(first) = &entries.as_slice()[0] else {
            panic!("{entries:?}");
        };
        assert_eq!(first.inner()["count"], AMQPValue::LongLongInt(3));
    }

    #[test]
    fn only_automatic_deaths_make_a_cycle() {
        use Reason::{Expired, MaxLength, Rejected};
        let after = |deaths: &[(&'static str, Reason)]| {
            let mut headers = Headers::new();
            for (queue, reason) in deaths {
                record(&mut headers, &death(queue, *reason));
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
