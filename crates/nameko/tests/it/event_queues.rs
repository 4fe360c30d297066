//! Queues of events and RPC requests: arguments, and conflicts with existing declarations.

use std::{sync::Arc, time::Duration};

use nameko::{
    Container, QueueConsumer,
    amqp::{self, ConnectOptions, Connection, Observer, Table},
    prelude::*,
    testing::{Recorder, entrypoint_waiter},
};
use nameko_broker::Broker;
use serde_json::{Value as Json, json};

use crate::{event_failures::send, events::channel, support};

#[derive(Dependencies)]
struct Durable;

#[service("durable")]
impl Durable {
    #[rpc(queue_arguments = [("x-expires", 600_000)])]
    async fn one(&self) -> Result<()> {
        Ok(())
    }

    #[rpc(queue_arguments = [("x-max-length", 100)])]
    async fn two(&self) -> Result<()> {
        Ok(())
    }

    #[event_handler("shop", "paid", queue_arguments = [("x-max-length", 7)])]
    async fn on_paid(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn queues_have_the_arguments_of_the_entrypoint_and_the_configuration() {
    let broker = support::broker().await;
    let config = broker.config().with(
        "queue_arguments",
        json!({"rpc": {"x-max-length": 50, "x-message-ttl": 60_000}, "events": {"x-max-length": 9, "x-expires": 600_000}}),
    );
    let durable = Container::new::<Durable>(config).unwrap();
    durable.start().await.unwrap();
    let channel = channel(&broker).await;
    for (queue, arguments) in [
        (
            "rpc-durable",
            Table::new()
                .with("x-expires", 600_000)
                .with("x-max-length", 100)
                .with("x-message-ttl", 60_000),
        ),
        (
            "evt-shop-paid--durable.on_paid",
            Table::new()
                .with("x-max-length", 7)
                .with("x-expires", 600_000),
        ),
    ] {
        // The broker considers it the same queue.
        let same = Queue::new(queue).arguments(arguments);
        channel.queue_declare(&same).await.unwrap();
    }
    durable.stop().await;
}

#[tokio::test]
async fn a_conflicting_declaration_is_an_error_with_both_values() {
    let broker = support::broker().await;
    let queue = Queue::new("evt-shop-paid--durable.on_paid").max_length(8);
    channel(&broker).await.queue_declare(&queue).await.unwrap();
    let durable = Container::new::<Durable>(broker.config()).unwrap();
    let started = support::within("an error", durable.start()).await;
    let text = started.unwrap_err().to_string();
    for expected in [
        "evt-shop-paid--durable.on_paid",
        "x-max-length",
        "'7'",
        "'8'",
        "delete the queue",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// Records the connection events of a container.
struct ConnectionLog(Recorder<String>);

impl Observer for ConnectionLog {
    fn connection_error(&self, error: &amqp::Error, _: Duration) {
        self.0.record(error.to_string());
    }

    fn connected(&self, _: bool) {
        self.0.record("connected".to_owned());
    }
}

#[tokio::test]
async fn a_conflicting_declaration_on_reconnect_is_retried_until_resolved() {
    let first = Broker::start("127.0.0.1:0").await.unwrap();
    let second = Broker::start("127.0.0.1:0").await.unwrap();
    let options = ConnectOptions::from_uri(&second.uri()).unwrap();
    let channel = Connection::open(&options).await.unwrap().channel().await;
    let channel = channel.unwrap();
    let queue = Queue::new("evt-shop-paid--durable.on_paid").max_length(8);
    channel.queue_declare(&queue).await.unwrap();

    let uris = format!("{};{}", first.uri(), second.uri());
    let durable = Container::new::<Durable>(Config::new().with("AMQP_URI", uris)).unwrap();
    durable.start().await.unwrap();
    let consumer = QueueConsumer::of(&durable).unwrap();
    let log = Recorder::new();
    consumer.watch(Arc::new(ConnectionLog(log.clone())));
    first.stop().await;
    let mut fared = log.take_when(1).await.unwrap();
    while !fared.iter().any(|event| event.contains("406")) {
        fared.extend(log.take_when(1).await.unwrap());
    }
    let error = fared.concat();
    for part in ["evt-shop-paid--durable.on_paid", "'7'", "'8'"] {
        assert!(error.contains(part), "{error}");
    }

    let mut paid = entrypoint_waiter(&durable, "on_paid");
    channel.queue_delete(&queue.name).await.unwrap();
    // The service declares the queue and recovers.
    while !fared.contains(&"connected".to_owned()) {
        fared.extend(log.take_when(1).await.unwrap());
    }
    send(&channel, "paid", Some("application/json"), b"1").await;
    paid.next().await.unwrap();
    durable.stop().await;
    second.stop().await;
}

#[derive(Dependencies)]
struct Torn;

#[service("torn")]
impl Torn {
    #[rpc(queue_arguments = [("x-max-priority", 5)])]
    async fn one(&self) -> Result<()> {
        Ok(())
    }

    #[rpc(queue_arguments = [("x-max-priority", 6)])]
    async fn two(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Dependencies)]
struct TornEvents;

#[service("torn_events")]
impl TornEvents {
    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn one(&self, _data: Json) -> Result<()> {
        Ok(())
    }

    #[event_handler("shop", "alone", handler_type = singleton, queue_arguments = [("x-max-length", 6)])]
    async fn two(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn conflicting_queue_arguments_of_methods_fail_the_start() {
    let broker = support::broker().await;
    let torn = Container::new::<Torn>(broker.config()).unwrap();
    let text = torn.start().await.unwrap_err().to_string();
    for expected in ["`rpc-torn`", "`x-max-priority` 5 and 6", "method `two`"] {
        assert!(text.contains(expected), "{text}");
    }
    let torn = Container::new::<TornEvents>(broker.config()).unwrap();
    let text = torn.start().await.unwrap_err().to_string();
    for expected in [
        "`evt-shop-alone`",
        "`x-max-length` none and 6",
        "method `two`",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[derive(Dependencies)]
struct Nameless;

#[service("nameless")]
impl Nameless {
    #[consume(Queue::new("").exclusive(true).bind(Exchange::fanout("news"), ""))]
    async fn one(&self, _data: Json) -> Result<()> {
        Ok(())
    }

    #[consume(Queue::new("").auto_delete(true).bind(Exchange::fanout("news"), ""))]
    async fn two(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn queues_named_by_the_broker_do_not_conflict() {
    let broker = support::broker().await;
    let nameless = Container::new::<Nameless>(broker.config()).unwrap();
    nameless.start().await.unwrap();
    let (mut one, mut two) = (
        entrypoint_waiter(&nameless, "one"),
        entrypoint_waiter(&nameless, "two"),
    );
    let channel = channel(&broker).await;
    let news = amqp::Publish {
        exchange: "news".to_owned(),
        properties: amqp::Properties {
            content_type: Some("application/json".into()),
            ..amqp::Properties::default()
        },
        body: "1".into(),
        ..amqp::Publish::default()
    };
    channel.publish(&news).await.unwrap().await.unwrap();
    one.next().await.unwrap();
    two.next().await.unwrap();
    nameless.stop().await;
}
