//! The pause before a message is requeued whose method has failed.
//!
//! A broker redelivers a requeued message at once. Without a pause, one that always fails keeps a
//! worker and the log busy with thousands of deliveries a second.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use crate::amqp::{Delivery, Value};
use crate::sync::lock;

/// The pause after the first failure of a message. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The number of failing messages above which the counts start over.
const MAX_COUNTED_MESSAGES: usize = 10_000;

/// The number of failures of each requeued message in this process.
static FAILURES: LazyLock<Failures> = LazyLock::new(Failures::default);

/// Counts the failures of messages, by the hash of what identifies one: AMQP gives a redelivered
/// message a new delivery tag.
#[derive(Default)]
struct Failures {
    hasher: RandomState,
    counts: Mutex<HashMap<u64, u32>>,
}

/// A message whose method may fail.
#[derive(Clone, Copy, Debug)]
pub struct RequeuePause {
    key: u64,
    /// The number of failures known before this delivery, at least.
    failures: u32,
}

impl RequeuePause {
    /// Remembers a delivery of `queue`, before its parts are taken.
    pub fn of(queue: &str, delivery: &Delivery) -> Self {
        let Delivery {
            body,
            properties,
            exchange,
            routing_key,
            redelivered,
            ..
        } = delivery;
        let id = (&properties.message_id, &properties.correlation_id);
        let key = (FAILURES.hasher).hash_one((queue, &**exchange, routing_key, id, &**body));
        // The count of a quorum queue, also over several instances.
        let counted_by_broker = match properties.headers.get("x-delivery-count") {
            Some(Value::Int(count)) => u32::try_from(*count).unwrap_or(0),
            _ => 0,
        };
        if !redelivered {
            lock(&FAILURES.counts).remove(&key);
        }
        RequeuePause {
            key,
            failures: counted_by_broker,
        }
    }

    /// Counts a failure. Returns the number of failures and the pause before the next delivery.
    pub fn next(self) -> (u32, Duration) {
        let mut counts = lock(&FAILURES.counts);
        if counts.len() >= MAX_COUNTED_MESSAGES {
            counts.clear();
        }
        let count = counts.entry(self.key).or_default();
        *count = (*count).max(self.failures).saturating_add(1);
        (*count, pause(*count))
    }

    /// Requeues the message after a pause that grows with each of its failures, and logs one line.
    /// If its connection ends earlier, the broker requeues it.
    pub async fn requeue(self, queue: &str, acker: crate::amqp::Acker) {
        let (failures, pause) = self.next();
        let times = match failures {
            1 => "once".to_owned(),
            _ => format!("{failures} times"),
        };
        tracing::warn!(
            "a message of `{queue}` has failed {times}, requeueing it in {:.1} s",
            pause.as_secs_f64()
        );
        sleep(pause).await;
        acker.reject(true);
    }
}

/// Returns the pause after a number of failures, at least one.
fn pause(failures: u32) -> Duration {
    2u32.checked_pow(failures - 1)
        .and_then(|factor| FIRST_PAUSE.checked_mul(factor))
        .map_or(MAX_PAUSE, |pause| pause.min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<_> = [1, 2, 3, 8, 9, 10, 40, u32::MAX]
            .map(|failures| pause(failures).as_millis())
            .into();
        assert_eq!(
            pauses,
            [100, 200, 400, 12_800, 25_600, 30_000, 30_000, 30_000]
        );
    }
}
