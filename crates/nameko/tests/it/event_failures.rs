//! Failing event handlers: requeueing, acknowledgement, unreadable events.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nameko::{
    Error,
    amqp::{Channel, Properties, Publish},
    prelude::*,
};

use crate::{
    events::{channel, dispatch, hearing, ready, shop, stop_all},
    services::{Hearing, Received},
    support,
};

#[derive(Dependencies)]
struct Fickle {
    #[dependency(Hearing)]
    received: Received,
}

impl Fickle {
    /// Fails the first two times.
    fn third_time(&self, data: &str) -> Result<()> {
        self.received.record(data.to_owned());
        if self.received.len() < 3 {
            return Err(Error::raise("NotYet", data));
        }
        Ok(())
    }
}

#[service("fickle")]
impl Fickle {
    #[event_handler("shop", "again", requeue_on_error)]
    async fn on_again(&self, data: String) -> Result<()> {
        self.third_time(&data)
    }

    #[event_handler("shop", "once")]
    async fn on_once(&self, data: String) -> Result<()> {
        self.third_time(&data)
    }
}

#[tokio::test]
async fn a_failed_event_is_redelivered_with_requeue_on_error() {
    let broker = support::broker().await;
    let (fickle, received) = hearing::<Fickle>(&broker).await;
    let shop = shop(&broker).await;
    dispatch(&shop, "again", "a".into()).await;
    assert_eq!(received.take_when(3).await.unwrap(), ["a", "a", "a"]);
    stop_all([&fickle, &shop]).await;
    assert_eq!(ready(&broker, "evt-shop-again--fickle.on_again").await, 0);
    assert!(received.is_empty());
}

#[derive(Dependencies)]
struct Hopeless {
    #[dependency(Hearing)]
    received: Received,
}

#[service("hopeless")]
impl Hopeless {
    #[event_handler("shop", "never", requeue_on_error)]
    async fn on_never(&self, data: String) -> Result<()> {
        self.received.record(data.clone());
        Err(Error::raise("Never", data))
    }
}

#[tokio::test]
async fn an_event_that_always_fails_is_requeued_more_and_more_slowly() {
    let broker = support::broker().await;
    let (hopeless, received) = hearing::<Hopeless>(&broker).await;
    let shop = shop(&broker).await;
    let start = Instant::now();
    dispatch(&shop, "never", "a".into()).await;
    assert_eq!(received.take_when(4).await.unwrap(), ["a"; 4]);
    // 0.1, 0.2 and 0.4 seconds.
    assert!(start.elapsed() >= Duration::from_millis(700));
    stop_all([&hopeless, &shop]).await;
    assert_eq!(ready(&broker, "evt-shop-never--hopeless.on_never").await, 1);
}

#[tokio::test]
async fn a_failed_event_is_acknowledged_by_default() {
    let broker = support::broker().await;
    let (fickle, received) = hearing::<Fickle>(&broker).await;
    let shop = shop(&broker).await;
    for data in ["a", "b", "c"] {
        dispatch(&shop, "once", data.into()).await;
    }
    let received = BTreeSet::from_iter(received.take_when(3).await.unwrap());
    assert_eq!(received, ["a", "b", "c"].map(str::to_owned).into());
    stop_all([&fickle, &shop]).await;
    assert_eq!(ready(&broker, "evt-shop-once--fickle.on_once").await, 0);
}

/// Publishes a raw event to an existing handler.
pub(crate) async fn send(
    channel: &Channel,
    event_type: &str,
    content_type: Option<&'static str>,
    body: &'static [u8],
) {
    channel.confirm_select().await.unwrap();
    let message = Publish {
        exchange: "shop.events".to_owned(),
        routing_key: event_type.to_owned(),
        properties: Properties {
            content_type: content_type.map(Into::into),
            ..Properties::default()
        },
        body: body.into(),
        mandatory: true,
    };
    channel.publish(&message).await.unwrap().await.unwrap();
}

/// Bodies that a handler of strings cannot read.
pub(crate) fn unreadable() -> Vec<(Option<&'static str>, &'static [u8])> {
    let json = Some("application/json");
    vec![
        (Some("application/x-unheard-of"), b"1"),
        (json, b"{\"cut\": "),
        (json, b""),
        (json, b"\xff"),
        (json, b"{\"not\": \"a text\"}"),
        (None, b"\xff"),
    ]
}

#[tokio::test]
async fn unreadable_events_are_rejected_and_not_requeued() {
    let broker = support::broker().await;
    let (fickle, received) = hearing::<Fickle>(&broker).await;
    let channel = channel(&broker).await;
    for (content_type, body) in unreadable() {
        // Not even with `requeue_on_error`.
        send(&channel, "again", content_type, body).await;
    }
    for _ in 0..3 {
        send(&channel, "once", Some("application/json"), b"\"good\"").await;
    }
    assert_eq!(received.take_when(3).await.unwrap(), ["good"; 3]);
    fickle.stop().await;
    assert_eq!(ready(&broker, "evt-shop-again--fickle.on_again").await, 0);
}

#[derive(Dependencies)]
struct Slow {
    #[dependency(Hearing)]
    received: Received,
}

#[service("slow")]
impl Slow {
    #[event_handler("shop", "long")]
    async fn on_long(&self, data: String) -> Result<()> {
        self.received.record(data);
        std::future::pending().await
    }
}

#[tokio::test]
async fn events_of_a_killed_container_are_redelivered_to_another() {
    let broker = support::broker().await;
    let (one, heard_one) = hearing::<Slow>(&broker).await;
    let shop = shop(&broker).await;
    dispatch(&shop, "long", "a".into()).await;
    heard_one.take_when(1).await.unwrap();
    one.kill(Error::raise("Test", "killed"));
    let (two, heard_two) = hearing::<Slow>(&broker).await;
    assert_eq!(heard_two.take_when(1).await.unwrap(), ["a"]);
    two.kill(Error::raise("Test", "killed"));
    shop.stop().await;
}
