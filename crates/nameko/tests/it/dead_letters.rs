//! Queues with arguments: priorities, limits, and where messages go that fail.

use std::collections::BTreeSet;

use nameko::{
    Container, Error,
    amqp::{Channel, Connection, Properties, Publish, Table},
    prelude::*,
};

use crate::{
    event_failures::{send, unreadable},
    messaging::put,
    services::{Heard, Hearing},
    support::{self, TestBroker},
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
async fn issue_387_what_fails_and_what_cannot_be_read_is_kept_in_a_queue_of_its_own() {
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
    assert_eq!(kept.iter().map(|it| &it[..]).collect::<BTreeSet<_>>(), sent);
    buried.stop().await;
}

#[derive(Dependencies)]
struct Levels {
    #[dependency(Hearing)]
    heard: Heard,
}

#[service("levels")]
impl Levels {
    #[consume(Queue::new("levels").max_priority(10), prefetch_count = 1)]
    async fn hear(&self, text: String) -> Result<()> {
        self.heard.record(text);
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
        self.heard.record(text.clone());
        Err(Error::raise("Broken", text))
    }
}

#[tokio::test]
async fn issue_387_queues_take_any_argument() {
    let broker = support::broker().await;
    let channel = channel(&broker).await;
    let heard = Heard::new();
    let levels = Container::builder::<Levels>(broker.config())
        .replace("heard", heard.clone())
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
    let heard_of = heard.take_when(3).await.unwrap();
    assert_eq!(heard_of, ["high", "middle", "low"]);

    // What always fails comes a few times, and is then kept where it does no harm.
    put(&channel, "fragile", "application/json", b"\"vase\"").await;
    let mut broken = support::consume(&channel, "broken").await;
    assert_eq!(&broken.next().await.body[..], b"\"vase\"");
    let times = heard.items();
    assert!((2..=3).contains(&times.len()), "{times:?}");
    levels.stop().await;
}
