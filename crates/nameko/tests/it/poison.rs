//! Unreadable messages of every kind to event handlers, consumers and RPC: each is logged, none
//! stays unacknowledged. The prefetch count is one.

use nameko::{
    Container,
    amqp::{Properties, Publish, Table, Value},
    prelude::*,
    serialization::{Codec, Compression},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    events::{channel, ready},
    peer::{Peer, json_of},
    services::{Hearing, Received},
    support::{self, TestBroker},
};

#[derive(Deserialize)]
struct Order {
    id: u32,
}

#[derive(Dependencies)]
struct Taster {
    #[dependency(Hearing)]
    received: Received,
}

#[service("taster")]
impl Taster {
    #[event_handler("shop", "order", requeue_on_error, queue_arguments = buried())]
    async fn on_order(&self, order: Order) -> Result<()> {
        self.received.record(format!("event {}", order.id));
        Ok(())
    }

    #[consume(Queue::new("orders").arguments(buried()), requeue_on_error)]
    async fn take(&self, order: Order) -> Result<()> {
        self.received.record(format!("message {}", order.id));
        Ok(())
    }

    #[rpc]
    async fn ask(&self, order: Order) -> Result<u32> {
        Ok(order.id)
    }
}

fn buried() -> Table {
    Table::new()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "graves")
}

async fn taster(broker: &TestBroker) -> (Container, Received) {
    let config = broker
        .config()
        .with("ACCEPT", vec!["json", "msgpack"])
        .with("max_workers", 1)
        .with("prefetch_count", 1)
        .with("max_decompressed_size", 1 << 20);
    let received = Received::new();
    let container = Container::builder::<Taster>(config);
    let container = container
        .replace("received", received.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    (container, received)
}

fn properties(content_type: &'static str, headers: Table) -> Properties {
    Properties {
        content_type: Some(content_type.into()),
        headers,
        ..Properties::default()
    }
}

/// Messages that are not an `Order`.
fn poison() -> Vec<(Properties, Vec<u8>)> {
    const DEEP: usize = 100_000;

    let deep = |open: &str, close: &str| open.repeat(DEEP) + &close.repeat(DEEP);
    let texts = [
        String::new(),
        " ".to_owned(),
        r#"{"id": "#.to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "NaN".to_owned(),
        r#"{"id": -Infinity}"#.to_owned(),
        r#"{"id": 1e400}"#.to_owned(),
        r#"{"id": 123456789012345678901234567890}"#.to_owned(),
        r#"{"id": -1}"#.to_owned(),
        r#"{"id": "\ud800"}"#.to_owned(),
        r#"{"__type__": "uuid", "__value__": {"hex": "x"}}"#.to_owned(),
        format!(r#"{{"id": {}}}"#, deep("[", "]")),
        deep(r#"{"id":"#, ""),
        format!(r#"{{"args": [{}], "kwargs": {{}}}}"#, deep("[", "]")),
        r#"{"args": [{"id": NaN}], "kwargs": {}}"#.to_owned(),
        r#"{"args": [], "kwargs": {"order": {"id": -1}}}"#.to_owned(),
    ];
    let texts = texts.into_iter().map(String::into_bytes);
    let other_texts = [
        b"\xff\xfe{\0}\0".to_vec(),
        b"{\"id\": \"gr\xfcn\"}".to_vec(),
        b"\xef\xbb\xbf{\"id\": 1}".to_vec(),
    ];
    let packed = [
        &b""[..],
        b"\xc1",
        b"\xc0",
        b"\x81\xa2id",
        b"\x81\xa2id\xd4\x01\x00",
        b"\x81\x01\x02",
        b"\x81\xa2id\xff",
        b"\x81\xa2id\x01\x01",
        b"\x81\xa2\xff\xff\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        &[0x91; DEEP],
        &[0x81; DEEP],
    ];
    let bomb = Codec::named("json").unwrap().encode(&"x".repeat(2 << 20));
    let bomb = bomb.unwrap().compress(Compression::Bzip2).unwrap().body;
    let compressed = [
        (Value::from("application/x-rot13"), b"{\"id\": 1}".to_vec()),
        (Value::from("application/x-gzip"), b"{\"id\": 1}".to_vec()),
        (Value::from("application/x-bz2"), Vec::new()),
        (Value::from("application/x-bz2"), bomb),
        (Value::from(7), b"{\"id\": 1}".to_vec()),
        (Value::Table(Table::new()), b"{\"id\": 1}".to_vec()),
    ];
    let json = || properties("application/json", Table::new());
    let msgpack = || properties("application/x-msgpack", Table::new());
    let mut all: Vec<_> = texts
        .chain(other_texts)
        .map(|text| (json(), text))
        .collect();
    all.extend(packed.map(|bytes| (msgpack(), bytes.to_vec())));
    all.extend(compressed.map(|(name, body)| {
        let headers = Table::new().with("compression", name);
        (properties("application/json", headers), body)
    }));
    let pickle = properties("application/x-python-serialize", Table::new());
    all.push((pickle, b"\x80\x04K\x01.".to_vec()));
    let unknown = Properties {
        content_encoding: Some("klingon".into()),
        ..properties("application/text", Table::new())
    };
    all.push((unknown, b"1".to_vec()));
    all
}

/// Invalid values of the framework's headers.
fn strange_headers() -> Table {
    Table::new()
        .with("nameko.call_id_stack", 7)
        .with("nameko.language", Table::new().with("a", 1e300))
        .with("nameko.", Value::Null)
        .with("nameko.user_id", Value::Bytes(b"\xff".to_vec().into()))
        .with("nameko.when", Value::Timestamp(u64::MAX))
        .with("compression", Value::Null)
}

async fn publish(broker: &TestBroker, exchange: &str, key: &str, good: &[u8]) -> usize {
    let channel = channel(broker).await;
    channel.queue_declare(&Queue::new("graves")).await.unwrap();
    channel.confirm_select().await.unwrap();
    let mut messages = poison();
    let bad = messages.len();
    let headers = strange_headers();
    messages.push((properties("application/json", headers), good.to_vec()));
    for (properties, body) in messages {
        let message = Publish {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
            mandatory: true,
            properties,
            body: body.into(),
        };
        channel.publish(&message).await.unwrap().await.unwrap();
    }
    bad
}

#[tokio::test]
async fn unreadable_events_are_dead_lettered_and_the_next_event_is_handled() {
    let broker = support::broker().await;
    let (taster, received) = taster(&broker).await;
    let bad = publish(&broker, "shop.events", "order", b"{\"id\": 1}").await;
    assert_eq!(received.take_when(1).await.unwrap(), ["event 1"]);
    taster.stop().await;
    assert_eq!(ready(&broker, "evt-shop-order--taster.on_order").await, 0);
    assert_eq!(ready(&broker, "graves").await as usize, bad);
}

#[tokio::test]
async fn unreadable_messages_are_dead_lettered_and_the_next_message_is_handled() {
    let broker = support::broker().await;
    let (taster, received) = taster(&broker).await;
    let bad = publish(&broker, "", "orders", b"{\"id\": 2}").await;
    assert_eq!(received.take_when(1).await.unwrap(), ["message 2"]);
    taster.stop().await;
    assert_eq!(ready(&broker, "orders").await, 0);
    assert_eq!(ready(&broker, "graves").await as usize, bad);
}

#[tokio::test]
async fn unreadable_requests_are_answered_and_the_next_request_is_served() {
    let broker = support::broker().await;
    let (taster, _) = taster(&broker).await;
    let mut peer = Peer::new(&broker).await;
    for (properties, body) in poison() {
        let codec = Codec::named("msgpack").unwrap().writing("json").unwrap();
        let reply = peer.ask_with("taster.ask", properties, &body).await;
        let reply: serde_json::Value = codec
            .decode(&reply.properties, &reply.body)
            .and_then(|payload| payload.read())
            .unwrap();
        assert!(reply["error"]["exc_type"].is_string(), "{reply}");
    }
    let good = properties("application/json", strange_headers());
    let body = br#"{"args": [{"id": 3}], "kwargs": {}}"#;
    let reply = peer.ask_with("taster.ask", good, body).await;
    assert_eq!(json_of(&reply), json!({"result": 3, "error": null}));
    // These have no caller.
    for (properties, body) in poison() {
        peer.send("taster.ask", properties, &body).await;
    }
    let reply = peer.ask("taster.ask", "application/json", body).await;
    assert_eq!(json_of(&reply)["result"], 3);
    taster.stop().await;
    assert_eq!(ready(&broker, "rpc-taster").await, 0);
}
