mod causes;
mod history;
mod routing;

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::{Channel, ExchangeKind, message::Delivery, options::*, types::AMQPValue};

use crate::support::*;

/// An entry of `x-death`, without its time.
#[derive(Debug, PartialEq)]
pub(super) struct Death {
    pub(super) count: i64,
    pub(super) reason: String,
    pub(super) queue: String,
    pub(super) exchange: String,
    pub(super) keys: Vec<String>,
    pub(super) expiration: Option<String>,
}

/// Parses the header `x-death`, checking the types of all fields.
pub(super) fn deaths(env: &TestEnv, message: &Delivery) -> Vec<Death> {
    let headers = message.properties.headers().clone().unwrap();
    let Some(AMQPValue::FieldArray(entries)) = headers.inner().get("x-death") else {
        panic!("no array x-death in {headers:?}");
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    entries
        .as_slice()
        .iter()
        .map(|entry| {
            let AMQPValue::FieldTable(entry) = entry else {
                panic!("not a table: {entry:?}")
            };
            let text_field = |key: &str| match entry.inner().get(key) {
                Some(AMQPValue::LongString(text)) => Some(env.without_prefix(&text.to_string())),
                None => None,
                other => panic!("{key}: {other:?}"),
            };
            let Some(AMQPValue::LongLongInt(count)) = entry.inner().get("count") else {
                panic!("{entry:?}")
            };
            let Some(AMQPValue::Timestamp(time)) = entry.inner().get("time") else {
                panic!("{entry:?}")
            };
            assert!(
                now.abs_diff(*time) < 60,
                "{time} is not about {now}, in seconds"
            );
            let Some(AMQPValue::FieldArray(keys)) = entry.inner().get("routing-keys") else {
                panic!("{entry:?}")
            };
            let keys = keys.as_slice().iter().map(|key| match key {
                AMQPValue::LongString(key) => env.without_prefix(&key.to_string()),
                other => panic!("{other:?}"),
            });
            Death {
                count: *count,
                reason: text_field("reason").unwrap(),
                queue: text_field("queue").unwrap(),
                exchange: text_field("exchange").unwrap(),
                keys: keys.collect(),
                expiration: text_field("original-expiration"),
            }
        })
        .collect()
}

pub(super) fn death(count: i64, reason: &str, queue: &str, exchange: &str, keys: &[&str]) -> Death {
    Death {
        count,
        reason: reason.into(),
        queue: queue.into(),
        exchange: exchange.into(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        expiration: None,
    }
}

/// Returns `x-first-death-reason`, `-queue` and `-exchange`.
pub(super) fn first_death(env: &TestEnv, message: &Delivery) -> [String; 3] {
    ["reason", "queue", "exchange"]
        .map(|field| header(env, message, &format!("x-first-death-{field}")))
}

/// Returns `x-last-death-reason`, `-queue` and `-exchange`.
pub(super) fn last_death(env: &TestEnv, message: &Delivery) -> [String; 3] {
    ["reason", "queue", "exchange"]
        .map(|field| header(env, message, &format!("x-last-death-{field}")))
}

fn header(env: &TestEnv, message: &Delivery, name: &str) -> String {
    match message
        .properties
        .headers()
        .as_ref()
        .unwrap()
        .inner()
        .get(name)
    {
        Some(AMQPValue::LongString(text)) => env.without_prefix(&text.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// Declares a queue `q` whose dead letters go through the fanout exchange `dlx` to the queue
/// `dead`.
pub(super) async fn with_dead_letters<const N: usize>(
    env: &TestEnv,
    channel: &Channel,
    more: [(&str, AMQPValue); N],
) -> (String, String) {
    let (queue, dlx, dead) = (env.queue("q"), env.exchange("dlx"), env.queue("dead"));
    channel.declare_exchange(&dlx, ExchangeKind::Fanout).await;
    channel.declare(&dead).await;
    channel.bind(&dead, &dlx, "").await;
    let mut arguments = table(more);
    arguments.insert("x-dead-letter-exchange".into(), text(&dlx));
    channel.declare_with(&queue, arguments).await;
    (queue, dead)
}

pub(super) async fn reject(channel: &Channel, queue: &str) {
    let message = wait_for_message(channel, queue).await;
    message
        .reject(BasicRejectOptions { requeue: false })
        .await
        .unwrap();
}

/// Waits for the first message of a queue and reads it.
pub(super) async fn wait_for_message(
    channel: &Channel,
    queue: &str,
) -> lapin::message::BasicGetMessage {
    wait_until("a message arrives", || async {
        channel.ready_count(queue).await > 0
    })
    .await;
    channel.get(queue).await.unwrap()
}
