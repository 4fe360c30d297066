//! Publishers and consumers of custom exchanges and queues.

use std::time::Duration;

use bytes::Bytes;
use nameko::{
    Container, Error,
    amqp::{Channel, Connection, Properties, Publish, Retry, Table, Value},
    prelude::*,
    serialization::{Codec, Compression, Payload},
    testing::{Recorder, entrypoint_hook, entrypoint_waiter},
};
use nameko_broker::Broker;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{
    services::{Hearing, Received},
    support::{self, TestBroker, put},
};

fn letters() -> Exchange {
    Exchange::topic("letters")
}

#[derive(Dependencies)]
struct Writer {
    #[dependency(
        Publisher::new(letters())
            .declare(Queue::new("inbox").bind(letters(), "in.#"))
            .routing_key("in.default")
            .headers([("a", "publisher"), ("b", "publisher")])
            .priority(3)
            .app_id("writer")
    )]
    letters: MessagePublisher,
    #[dependency(Publisher::to_queues().mandatory(true))]
    queues: MessagePublisher,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("writer")]
impl Writer {
    #[rpc]
    async fn plain(&self, value: Json) -> Result<()> {
        self.letters.publish(&value).await
    }

    #[rpc]
    async fn with_options(&self, value: Json) -> Result<()> {
        self.worker.set("language", "fr");
        self.letters
            .publish(&value)
            .routing_key("in.special")
            .header("b", "call")
            .header("c", 7)
            .header("nameko.language", "never")
            .priority(5)
            .persistent(false)
            .expiration(Duration::from_millis(10_500))
            .correlation_id("correlation")
            .reply_to("replies")
            .message_id("id")
            .timestamp(1_700_000_000)
            .message_type("letter")
            .user_id("guest")
            .cluster_id("cluster")
            .content_type("application/vnd.letter+json")
            .content_encoding("us-ascii")
            .await
    }

    #[rpc]
    async fn squeezed(&self, value: Json) -> Result<()> {
        self.letters
            .publish(&value)
            .compression(Compression::Gzip)
            .await
    }

    #[rpc]
    async fn packed(&self, value: Json) -> Result<()> {
        self.letters.publish(&value).serializer("msgpack").await
    }

    #[rpc]
    async fn picture(&self) -> Result<()> {
        let bytes = &[0xff, 0xd8, 0xff][..];
        self.letters
            .publish_bytes(bytes)
            .content_type("image/jpeg")
            .await
    }

    #[rpc]
    async fn to_queue(&self, queue: String) -> Result<()> {
        self.queues.publish("hello").routing_key(queue).await
    }

    #[rpc]
    async fn to_queue_made_first(&self, queue: String) -> Result<()> {
        let message = self.queues.publish("hello").routing_key(&queue);
        message.declare(queue.as_str()).await
    }

    #[rpc]
    async fn as_somebody_else(&self) -> Result<()> {
        self.letters.publish("hello").user_id("somebody").await
    }
}

async fn start<S: Service>(config: Config) -> Container {
    let container = Container::new::<S>(config).unwrap();
    container.start().await.unwrap();
    container
}

async fn channel(broker: &TestBroker) -> Channel {
    let connection = Connection::open(&broker.options()).await.unwrap();
    connection.channel().await.unwrap()
}

async fn ask(container: &Container, method: &str, arguments: Json) -> Result<()> {
    entrypoint_hook(container, method).call(arguments).await
}

#[tokio::test]
async fn a_message_has_the_publishers_options() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let mut inbox = support::consume(&channel(&broker).await, "inbox").await;
    ask(&writer, "plain", json!([{"é": 1.0}])).await.unwrap();
    let message = inbox.next().await;
    assert_eq!(&message.body[..], b"{\"\\u00e9\": 1.0}");
    assert_eq!(
        (&*message.exchange, &*message.routing_key),
        ("letters", "in.default")
    );
    let properties = message.properties;
    let mut headers = properties.headers.clone();
    assert!(headers.remove("nameko.call_id_stack").is_some());
    assert_eq!(
        headers,
        Table::from([("a", "publisher"), ("b", "publisher")])
    );
    let expected = Properties {
        content_type: Some("application/json".into()),
        content_encoding: Some("utf-8".into()),
        headers: properties.headers.clone(),
        delivery_mode: Some(2),
        priority: Some(3),
        app_id: Some("writer".into()),
        ..Properties::default()
    };
    assert_eq!(properties, expected);
    writer.stop().await;
}

#[tokio::test]
async fn options_of_a_call_override_and_headers_are_merged() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let mut inbox = support::consume(&channel(&broker).await, "inbox").await;
    ask(&writer, "with_options", json!(["x"])).await.unwrap();
    let message = inbox.next().await;
    assert_eq!(message.routing_key, "in.special");
    let properties = message.properties;
    let mut headers = properties.headers.clone();
    assert!(headers.remove("nameko.call_id_stack").is_some());
    assert_eq!(
        headers,
        Table::new()
            .with("a", "publisher")
            .with("b", "call")
            .with("c", 7)
            .with("nameko.language", "fr")
    );
    let expected = Properties {
        content_type: Some("application/vnd.letter+json".into()),
        content_encoding: Some("us-ascii".into()),
        headers: properties.headers.clone(),
        delivery_mode: Some(1),
        priority: Some(5),
        correlation_id: Some("correlation".into()),
        reply_to: Some("replies".into()),
        expiration: Some("10500".into()),
        message_id: Some("id".into()),
        timestamp: Some(1_700_000_000),
        type_: Some("letter".into()),
        user_id: Some("guest".into()),
        app_id: Some("writer".into()),
        cluster_id: Some("cluster".into()),
    };
    assert_eq!(properties, expected);
    writer.stop().await;
}

#[tokio::test]
async fn bodies_can_have_other_formats() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let mut inbox = support::consume(&channel(&broker).await, "inbox").await;

    ask(&writer, "squeezed", json!(["x".repeat(1000)]))
        .await
        .unwrap();
    let message = inbox.next().await;
    let compression = message.properties.headers.get("compression");
    assert_eq!(compression, Some(&Value::from("application/x-gzip")));
    assert!(message.body.len() < 100);
    let codec = Codec::named("json").unwrap();
    let text = codec.decode(&message.properties, &message.body).unwrap();
    assert_eq!(text.read::<String>().unwrap(), "x".repeat(1000));

    ask(&writer, "packed", json!([[1, "x"]])).await.unwrap();
    let message = inbox.next().await;
    let content_type = message.properties.content_type;
    assert_eq!(content_type.as_deref(), Some("application/x-msgpack"));
    assert_eq!(&message.body[..], b"\x92\x01\xa1x");

    ask(&writer, "picture", json!([])).await.unwrap();
    let message = inbox.next().await;
    let properties = message.properties;
    assert_eq!(properties.content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(properties.content_encoding.as_deref(), Some("binary"));
    assert_eq!(&message.body[..], b"\xff\xd8\xff");
    writer.stop().await;
}

#[tokio::test]
async fn an_unroutable_mandatory_message_is_an_error_and_the_next_one_is_sent() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let error = ask(&writer, "to_queue", json!(["nowhere"])).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`nowhere`") && error.contains("NO_ROUTE"),
        "{error}"
    );
    let made = ask(&writer, "to_queue_made_first", json!(["somewhere"])).await;
    made.unwrap();
    ask(&writer, "to_queue", json!(["somewhere"]))
        .await
        .unwrap();
    let mut somewhere = support::consume(&channel(&broker).await, "somewhere").await;
    for _ in 0..2 {
        assert_eq!(&somewhere.next().await.body[..], b"\"hello\"");
    }
    writer.stop().await;
}

#[tokio::test]
async fn a_message_with_another_user_id_is_refused_and_the_next_one_is_sent() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let mut inbox = support::consume(&channel(&broker).await, "inbox").await;
    let error = ask(&writer, "as_somebody_else", json!([])).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("406") && error.contains("somebody"),
        "{error}"
    );
    ask(&writer, "plain", json!([1])).await.unwrap();
    assert_eq!(&inbox.next().await.body[..], b"1");
    writer.stop().await;
}

#[tokio::test]
async fn a_publisher_redeclares_on_a_broker_that_lost_its_state() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (addr, uri) = (broker.addr(), broker.uri());
    let writer = start::<Writer>(Config::default().with("AMQP_URI", uri.as_str())).await;
    ask(&writer, "plain", json!([1])).await.unwrap();
    broker.stop().await;
    let broker = Broker::start(addr).await.unwrap();
    ask(&writer, "plain", json!([2])).await.unwrap();
    let options = nameko::amqp::ConnectOptions::from_uri(&uri).unwrap();
    let channel = Connection::open(&options).await.unwrap().channel().await;
    let mut inbox = support::consume(&channel.unwrap(), "inbox").await;
    assert_eq!(&inbox.next().await.body[..], b"2");
    writer.stop().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_publisher_waits_for_the_broker_at_the_start() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (addr, config) = (
        broker.addr(),
        Config::default().with("AMQP_URI", broker.uri()),
    );
    broker.stop().await;
    let broken = tokio::net::TcpListener::bind(addr).await.unwrap();
    let starting = tokio::spawn(start::<Writer>(config));
    // One attempt reaches a server that closes the connection.
    let attempt = support::within("an attempt", broken.accept()).await;
    drop((attempt, broken));
    let broker = Broker::start(addr).await.unwrap();
    let writer = support::within("the start", starting).await.unwrap();
    ask(&writer, "plain", json!([1])).await.unwrap();
    writer.stop().await;
    broker.stop().await;
}

#[derive(Dependencies)]
struct Patient {
    #[dependency(
        Publisher::to_queues()
            .mandatory(true)
            .declare(Queue::new("brief").auto_delete(true))
    )]
    queues: MessagePublisher,
}

#[service("patient")]
impl Patient {
    #[rpc]
    async fn brief(&self) -> Result<()> {
        self.queues.publish("x").routing_key("brief").await
    }

    #[rpc]
    async fn declare_for_ever(&self) -> Result<()> {
        let message = self.queues.publish("x").routing_key("own").declare("own");
        let for_ever = Retry {
            max_retries: None,
            ..Retry::default()
        };
        message.retry(Some(for_ever)).await
    }
}

#[tokio::test]
async fn a_queue_deleted_with_its_consumer_is_redeclared() {
    let broker = support::broker().await;
    let patient = start::<Patient>(broker.config()).await;
    let reader = channel(&broker).await;
    for _ in 0..2 {
        ask(&patient, "brief", json!([])).await.unwrap();
        let tag = reader
            .consume("brief", |delivery| delivery.acker.ack(), |_| {})
            .await;
        reader.cancel(&tag.unwrap()).await.unwrap();
    }
    patient.stop().await;
}

#[tokio::test]
async fn declarations_of_a_message_are_retried_with_the_message() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (addr, config) = (
        broker.addr(),
        Config::default().with("AMQP_URI", broker.uri()),
    );
    let patient = start::<Patient>(config).await;
    broker.stop().await;
    let broken = tokio::net::TcpListener::bind(addr).await.unwrap();
    let container = patient.clone();
    let asked = tokio::spawn(async move { ask(&container, "declare_for_ever", json!([])).await });
    // One attempt reaches a server that closes the connection.
    let attempt = support::within("an attempt", broken.accept()).await;
    drop((attempt, broken));
    let broker = Broker::start(addr).await.unwrap();
    support::within("the message", asked)
        .await
        .unwrap()
        .unwrap();
    patient.stop().await;
    broker.stop().await;
}

#[derive(Dependencies)]
struct Hasty {
    #[dependency(Publisher::to_queues().retry(None))]
    queues: MessagePublisher,
}

#[service("hasty")]
impl Hasty {
    #[rpc]
    async fn publish(&self, retries: Option<u32>) -> Result<()> {
        let message = self.queues.publish("x").routing_key("q");
        match retries {
            None => message.await,
            Some(retries) => {
                let retry = Retry {
                    max_retries: Some(retries),
                    interval_start: Duration::from_millis(1),
                    interval_max: Duration::from_millis(1),
                    ..Retry::default()
                };
                message.retry(Some(retry)).await
            }
        }
    }
}

#[tokio::test]
async fn the_number_of_retries_is_configurable() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let config = Config::default().with("AMQP_URI", broker.uri());
    let hasty = start::<Hasty>(config).await;
    broker.stop().await;
    for retries in [json!([null]), json!([2])] {
        let lost = support::within("an error", ask(&hasty, "publish", retries)).await;
        let text = lost.unwrap_err().to_string();
        assert!(text.contains("127.0.0.1"), "{text}");
    }
    hasty.kill(Error::raise("Test", "the broker is gone"));
}

#[tokio::test]
async fn a_test_observes_messages_without_a_broker() {
    let messages = Recorder::new();
    let recorder = messages.clone();
    let mock = MessagePublisher::mock(move |message| {
        recorder.record(message);
        Ok(())
    });
    let writer = Writer {
        letters: mock.clone(),
        queues: mock,
        worker: WorkerContext::mock("writer", "plain"),
    };
    writer.with_options(json!({"a": 1})).await.unwrap();
    let message: Publish = messages.items().remove(0);
    assert_eq!(&message.body[..], b"{\"a\": 1}");
    assert_eq!(message.routing_key, "in.special");
    assert_eq!(message.properties.priority, Some(5));
}

#[derive(Debug, Deserialize, serde::Serialize, PartialEq)]
struct Order {
    id: u32,
    #[serde(default)]
    lines: Vec<String>,
}

#[derive(Dependencies)]
struct Reader {
    #[dependency(Hearing)]
    received: Received,
}

#[service("reader")]
impl Reader {
    #[consume(Queue::new("orders").bind(Exchange::direct("shop"), "order"))]
    async fn typed(&self, order: Order) -> Result<Order> {
        Ok(order)
    }

    #[consume("anything")]
    async fn unread(&self, payload: Payload) -> Result<String> {
        Ok(payload.to_json()?.get().to_owned())
    }

    #[consume("pictures")]
    async fn raw(&self, body: Bytes) -> Result<Vec<u8>> {
        Ok(body.to_vec())
    }

    #[consume("lines", requeue_on_error, prefetch_count = 1)]
    async fn in_order(&self, line: String) -> Result<()> {
        self.received.record(line.clone());
        match self.received.len() {
            1 => Err(Error::raise("NotYet", line)),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn the_parameter_type_selects_the_form_of_the_body() {
    let broker = support::broker().await;
    let config = broker.config().with("ACCEPT", vec!["json", "msgpack"]);
    let reader = start::<Reader>(config).await;
    let channel = channel(&broker).await;

    let mut typed = entrypoint_waiter(&reader, "typed");
    put(&channel, "orders", "application/json", br#"{"id": 7}"#).await;
    let order: Order = typed.result().await.unwrap();
    assert_eq!((order.id, order.lines.len()), (7, 0));
    put(
        &channel,
        "orders",
        "application/x-msgpack",
        b"\x81\xa2id\x08",
    )
    .await;
    assert_eq!(typed.result::<Order>().await.unwrap().id, 8);

    let mut unread = entrypoint_waiter(&reader, "unread");
    put(&channel, "anything", "application/json", br#"{"a": [1]}"#).await;
    assert_eq!(unread.result::<String>().await.unwrap(), r#"{"a": [1]}"#);

    let mut raw = entrypoint_waiter(&reader, "raw");
    put(&channel, "pictures", "application/data", b"\xff\xd8").await;
    assert_eq!(raw.result::<Vec<u8>>().await.unwrap(), [0xff, 0xd8]);
    reader.stop().await;
}

#[tokio::test]
async fn a_prefetch_of_one_keeps_the_order_of_redelivered_messages() {
    let broker = support::broker().await;
    let received = Received::new();
    let reader = Container::builder::<Reader>(broker.config())
        .replace("received", received.clone())
        .build()
        .unwrap();
    let channel = channel(&broker).await;
    channel.queue_declare(&Queue::new("lines")).await.unwrap();
    for body in [&b"\"a\""[..], b"\"b\"", b"\"c\""] {
        put(&channel, "lines", "application/json", body).await;
    }
    reader.start().await.unwrap();
    assert_eq!(received.take_when(4).await.unwrap(), ["a", "a", "b", "c"]);
    reader.stop().await;
}

#[derive(Dependencies)]
struct Confused;

#[service("confused")]
impl Confused {
    #[consume("q", requeue_on_error, reject_on_error)]
    async fn both(&self, _body: Json) -> Result<()> {
        Ok(())
    }
}

#[test]
fn exclusive_options_are_an_error_before_the_start() {
    let error = Container::new::<Confused>(Config::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("confused") && text.contains("`both`"),
        "{text}"
    );
    assert!(text.contains("`reject_on_error`"), "{text}");
}

#[derive(Dependencies)]
struct Misplaced {
    #[dependency(Publisher::new(Exchange::fanout("letters")))]
    letters: MessagePublisher,
}

#[service("misplaced")]
impl Misplaced {
    #[rpc]
    async fn publish(&self) -> Result<()> {
        self.letters.publish("x").await
    }
}

#[tokio::test]
async fn a_conflicting_exchange_declaration_is_an_error_with_both_kinds() {
    let broker = support::broker().await;
    let writer = start::<Writer>(broker.config()).await;
    let misplaced = Container::new::<Misplaced>(broker.config()).unwrap();
    let started = support::within("an error", misplaced.start()).await;
    let text = started.unwrap_err().to_string();
    for expected in [
        "dependency `letters`",
        "'letters'",
        "'fanout'",
        "'topic'",
        "delete the exchange",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    writer.stop().await;
}
