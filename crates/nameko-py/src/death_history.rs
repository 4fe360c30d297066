//! The header `x-death` of republished messages.
//!
//! Extensions such as nameko-amqp-retry count retries by republishing a dead letter with its
//! headers: RabbitMQ 3 continued the `x-death` of the message, RabbitMQ 4 starts a new one
//! (<https://www.rabbitmq.com/docs/dlx>). Messages are therefore published with the history in a
//! header of its own, and received with both as `x-death`.

use nameko::amqp::{Table, Value};

const DEATHS: &str = "x-death";

/// Carries the entries of `x-death` through a broker that discards them.
const PREVIOUS: &str = "x-previous-deaths";

/// Moves the history of a message that is published into [`PREVIOUS`].
pub(crate) fn keep(headers: &mut Table) {
    if let Some(Value::List(_)) = headers.get(DEATHS)
        && let Some(deaths) = headers.remove(DEATHS)
    {
        headers.insert(PREVIOUS, deaths);
    }
}

/// Returns the headers of a received message with its whole history in `x-death`: the broker's
/// entries, most recent first, then those of [`PREVIOUS`]. Counts of the same queue and reason are
/// added. None if it was not republished.
pub(crate) fn restore(headers: &Table) -> Option<Table> {
    let Some(Value::List(previous)) = headers.get(PREVIOUS) else {
        return None;
    };
    let mut deaths = match headers.get(DEATHS) {
        Some(Value::List(deaths)) => deaths.clone(),
        _ => Vec::new(),
    };
    for entry in previous {
        match deaths.iter_mut().find(|death| same_cause(death, entry)) {
            Some(Value::Table(death)) => {
                let sum = count(death).saturating_add(entry.as_table().map_or(0, count));
                death.insert("count", sum);
            }
            _ => deaths.push(entry.clone()),
        }
    }
    let mut whole = headers.clone();
    whole.remove(PREVIOUS);
    whole.insert(DEATHS, Value::List(deaths));
    Some(whole)
}

fn same_cause(death: &Value, other: &Value) -> bool {
    let (Some(death), Some(other)) = (death.as_table(), other.as_table()) else {
        return false;
    };
    ["queue", "reason"]
        .iter()
        .all(|key| death.get(key) == other.get(key))
}

fn count(death: &Table) -> i64 {
    death.get("count").and_then(Value::as_int).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(queue: &str, count: i64) -> Value {
        let entry = Table::new().with("queue", queue).with("reason", "expired");
        Value::Table(entry.with("count", count))
    }

    fn dead(deaths: impl Into<Vec<Value>>) -> Table {
        Table::new().with(DEATHS, Value::List(deaths.into()))
    }

    #[test]
    fn a_history_is_whole_though_the_broker_starts_a_new_one() {
        let mut headers = dead([death("a", 2), death("b", 1)]);
        keep(&mut headers);
        assert!(!headers.contains(DEATHS));
        headers.insert(DEATHS, Value::List(vec![death("c", 1), death("a", 1)]));
        let expected = [death("c", 1), death("a", 3), death("b", 1)];
        assert_eq!(restore(&headers), Some(dead(expected)));
    }

    #[test]
    fn a_message_that_has_not_died_again_has_its_history() {
        let headers = dead([death("a", 2)]);
        let mut sent = headers.clone();
        keep(&mut sent);
        assert_eq!(restore(&sent), Some(headers));
    }

    #[test]
    fn headers_of_other_messages_and_malformed_ones_stay_as_they_are() {
        let mut malformed = Table::new().with(DEATHS, "mine").with(PREVIOUS, 1);
        let unchanged = malformed.clone();
        keep(&mut malformed);
        assert_eq!(malformed, unchanged);
        assert_eq!(restore(&malformed), None);
        assert_eq!(restore(&dead([death("a", 1)])), None);

        let odd = Table::new().with(PREVIOUS, Value::List(vec![Value::Int(1), Value::Null]));
        assert_eq!(restore(&odd), Some(dead([Value::Int(1), Value::Null])));
    }
}
