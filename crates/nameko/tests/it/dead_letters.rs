//! Queue arguments: priorities, limits, dead letters.

use std::collections::BTreeSet;

use nameko::{
    Container, Error,
    amqp::{Channel, Connection, Properties, Publish, Table},
    prelude::*,
    testing::entrypoint_hook,
};

use crate::{
    event_failures::{send, unreadable},
    events::ready,
    services::{Hearing, Received},
    support::{self, TestBroker, put},
};

#[derive(Dependencies)]
struct Buried;

#[service("buried")]
impl Buried {
    #[event_handler(
        "shop",
        "paid",
        reject_on_error,
        queue_arguments = Table::new()
            .with("x-dead-letter-exchange", "")
            .with("x-dead-letter-routing-key", "graves")
    )]
    async fn on_paid(&self, data: String) -> Result<()> {
        Err(Error::raise("Broken", data))
    }
}

async fn channel(broker: &TestBroker) -> Channel {
    let connection = Connection::open(&broker.options()).await.unwrap();
    connection.channel().await.unwrap()
}

#[tokio::test]
async fn issue_387_failed_and_unreadable_messages_are_dead_lettered() {
    let broker = support::broker().await;
    let buried = Container::new::<Buried>(broker.config()).unwrap();
    let channel = channel(&broker).await;
    channel.queue_declare(&Queue::new("graves")).await.unwrap();
    buried.start().await.unwrap();
    let mut sent: BTreeSet<&[u8]> = BTreeSet::new();
    for (content_type, body) in unreadable() {
        send(&channel, "paid", content_type, body).await;
        sent.insert(body);
    }
    send(&channel, "paid", Some("application/json"), b"\"fails\"").await;
    sent.insert(b"\"fails\"");
    let mut graves = support::consume(&channel, "graves").await;
    let mut kept = Vec::new();
    while kept.len() < unreadable().len() + 1 {
        kept.push(graves.next().await.body);
    }
    assert_eq!(
        kept.iter().map(|body| &body[..]).collect::<BTreeSet<_>>(),
        sent
    );
    buried.stop().await;
}

#[derive(Dependencies)]
struct Graves {
    #[dependency(Hearing)]
    received: Received,
}

#[service("graves")]
impl Graves {
    #[consume(Queue::new("graves"))]
    async fn on_dead_letter(&self, message: RawMessage) -> Result<()> {
        let from = message.properties.headers.get("x-first-death-queue");
        self.received.record(format!(
            "{}|{}|{}|{}",
            from.and_then(|exchange| exchange.as_str())
                .unwrap_or("nowhere"),
            message.routing_key,
            message.properties.content_type.as_deref().unwrap_or("none"),
            String::from_utf8_lossy(&message.body),
        ));
        Ok(())
    }

    #[event_handler("shop", "anything", requeue_on_error)]
    async fn on_anything(&self, message: RawMessage) -> Result<()> {
        self.received.record(format!(
            "{}|{}|{}",
            message.exchange,
            message.redelivered,
            message.body.len()
        ));
        if message.redelivered {
            return Ok(());
        }
        Err(Error::raise("Broken", "the first time"))
    }
}

#[tokio::test]
async fn a_method_takes_raw_messages_of_any_format() {
    let broker = support::broker().await;
    let channel = channel(&broker).await;
    let received = Received::new();
    let graves = Container::builder::<Graves>(broker.config())
        .replace("received", received.clone())
        .build()
        .unwrap();
    graves.start().await.unwrap();
    let buried = Container::new::<Buried>(broker.config()).unwrap();
    buried.start().await.unwrap();
    let mut expected = BTreeSet::new();
    for (content_type, body) in unreadable() {
        send(&channel, "paid", content_type, body).await;
        expected.insert(format!(
            "evt-shop-paid--buried.on_paid|graves|{}|{}",
            content_type.unwrap_or("none"),
            String::from_utf8_lossy(body),
        ));
    }
    let found = received.take_when(expected.len()).await.unwrap();
    assert_eq!(BTreeSet::from_iter(found), expected);

    // Event handlers may too, and the method decides whether a message is acknowledged.
    send(
        &channel,
        "anything",
        Some("application/x-unheard-of"),
        b"\xff",
    )
    .await;
    let found = received.take_when(2).await.unwrap();
    assert_eq!(found, ["shop.events|false|1", "shop.events|true|1"]);

    // A test can pass one without a queue.
    let on_dead_letter = entrypoint_hook(&graves, "on_dead_letter");
    let message = RawMessage {
        body: "?".into(),
        ..RawMessage::default()
    };
    on_dead_letter.message::<()>(message).await.unwrap();
    assert_eq!(received.take_when(1).await.unwrap(), ["nowhere||none|?"]);
    let error = on_dead_letter
        .call::<()>(("text",))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("with `message`"), "{error}");
    buried.stop().await;
    graves.stop().await;
    for queue in ["graves", "evt-shop-anything--graves.on_anything"] {
        assert_eq!(ready(&broker, queue).await, 0, "{queue}");
    }
}

#[derive(Dependencies)]
struct Levels {
    #[dependency(Hearing)]
    received: Received,
}

#[service("levels")]
impl Levels {
    #[consume(Queue::new("levels").max_priority(10), prefetch_count = 1)]
    async fn on_text(&self, text: String) -> Result<()> {
        self.received.record(text);
        Ok(())
    }

    #[consume(
        Queue::new("fragile")
            .quorum()
            .delivery_limit(2)
            .dead_letter("", "broken"),
        requeue_on_error
    )]
    async fn break_it(&self, text: String) -> Result<()> {
        self.received.record(text.clone());
        Err(Error::raise("Broken", text))
    }
}

#[tokio::test]
async fn issue_387_queues_take_arbitrary_arguments() {
    let broker = support::broker().await;
    let channel = channel(&broker).await;
    let received = Received::new();
    let levels = Container::builder::<Levels>(broker.config())
        .replace("received", received.clone())
        .build()
        .unwrap();
    channel.queue_declare(&Queue::new("broken")).await.unwrap();
    let queue = Queue::new("levels").max_priority(10);
    channel.queue_declare(&queue).await.unwrap();
    channel.confirm_select().await.unwrap();
    for (priority, body) in [(1, "\"low\""), (9, "\"high\""), (5, "\"middle\"")] {
        let message = Publish {
            routing_key: "levels".to_owned(),
            properties: Properties {
                content_type: Some("application/json".into()),
                priority: Some(priority),
                ..Properties::default()
            },
            body: body.into(),
            ..Publish::default()
        };
        channel.publish(&message).await.unwrap().await.unwrap();
    }
    levels.start().await.unwrap();
    let heard_of = received.take_when(3).await.unwrap();
    assert_eq!(heard_of, ["high", "middle", "low"]);

    // A message that always fails is redelivered up to the limit, then dead-lettered.
    put(&channel, "fragile", "application/json", b"\"vase\"").await;
    let mut broken = support::consume(&channel, "broken").await;
    assert_eq!(&broken.next().await.body[..], b"\"vase\"");
    let times = received.items();
    assert!((2..=3).contains(&times.len()), "{times:?}");
    levels.stop().await;
}
