//! Messages in formats other than JSON, and malformed messages.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use nameko::{
    amqp::{Properties, Queue},
    prelude::*,
    serialization::{
        self, Codec, Compression, DynSerialize, Error as FormatError, Payload, Serializer,
    },
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::{Value as Json, json};

use crate::{
    peer::{Peer, json_of},
    support::{self, TestBroker},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Size {
    Small,
    Custom { width: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    /// A type that serde writes as text in human-readable formats, and as bytes in others.
    from: IpAddr,
    size: Size,
    note: Option<String>,
    lines: Vec<(String, u64)>,
}

#[derive(Dependencies)]
struct Mirror;

#[service("mirror")]
impl Mirror {
    #[rpc]
    async fn order(&self, order: Order) -> Result<Order> {
        Ok(order)
    }

    /// Takes Python's bytes as a plain `Vec`.
    #[rpc]
    async fn upside_down(&self, bytes: Vec<u8>) -> Result<ByteBuf> {
        Ok(bytes.into_iter().rev().collect::<Vec<_>>().into())
    }

    #[rpc]
    async fn names(&self, by_number: BTreeMap<i64, String>) -> Result<BTreeMap<String, i64>> {
        Ok(by_number.into_iter().map(|(k, v)| (v, k)).collect())
    }

    #[rpc]
    async fn numbers(&self, numbers: (u64, i64, f64, f32)) -> Result<(u64, i64, f64, f32)> {
        Ok(numbers)
    }

    /// Returns a value of unknown type.
    #[rpc]
    async fn any(&self, value: Payload) -> Result<Payload> {
        Ok(value)
    }

    #[rpc]
    async fn fail(&self) -> Result<()> {
        Err(Error::raise("Broken", "as asked"))
    }

    /// Returns a value that no format can represent.
    #[rpc]
    async fn unwritable(&self) -> Result<Unwritable> {
        Ok(Unwritable)
    }
}

struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

fn config(broker: &TestBroker, serializer: &str, accept: &[&str]) -> Config {
    broker
        .config()
        .with("serializer", serializer)
        .with("ACCEPT", accept.to_vec())
}

async fn serve(config: Config) -> Container {
    let container = Container::new::<Mirror>(config).unwrap();
    container.start().await.unwrap();
    container
}

#[tokio::test]
async fn services_communicate_in_message_pack() {
    let broker = support::broker().await;
    let container = serve(config(&broker, "msgpack", &["msgpack"])).await;
    let cluster = Cluster::connect(&broker.config().with("serializer", "msgpack"))
        .await
        .unwrap();
    let mirror = cluster.service("mirror");

    let order = Order {
        from: Ipv4Addr::LOCALHOST.into(),
        size: Size::Custom { width: 3 },
        note: None,
        lines: vec![("tea ☕".to_owned(), 2)],
    };
    assert_eq!(
        mirror.call::<Order>("order", (&order,)).await.unwrap(),
        order
    );
    let named = BTreeMap::from([("order", &order)]);
    assert_eq!(mirror.call::<Order>("order", &named).await.unwrap(), order);

    let bytes: ByteBuf = mirror
        .call("upside_down", (ByteBuf::from([0, 1, 255]),))
        .await
        .unwrap();
    assert_eq!(bytes.into_vec(), [255, 1, 0]);

    let names: BTreeMap<String, i64> = mirror
        .call(
            "names",
            (BTreeMap::from([(-3, "minus three"), (4, "four")]),),
        )
        .await
        .unwrap();
    assert_eq!(names["minus three"], -3);

    type Numbers = (u64, i64, f64, f32);
    let numbers: Numbers = mirror
        .call(
            "numbers",
            ((u64::MAX, i64::MIN, f64::NAN, f32::NEG_INFINITY),),
        )
        .await
        .unwrap();
    assert_eq!((numbers.0, numbers.1), (u64::MAX, i64::MIN));
    assert!(numbers.2.is_nan() && numbers.3 == f32::NEG_INFINITY);

    let passed: BTreeMap<i64, ByteBuf> = mirror
        .call("any", (BTreeMap::from([(1, ByteBuf::from(*b"x"))]),))
        .await
        .unwrap();
    assert_eq!(passed[&1].as_slice(), b"x");

    let failed = mirror.call::<()>("fail", ()).await.unwrap_err();
    assert_eq!(failed.to_string(), "Broken as asked");
    let wrong = mirror.call::<()>("names", (1,)).await.unwrap_err();
    assert!(
        wrong
            .to_string()
            .starts_with("names() argument 'by_number': invalid type: integer `1`"),
        "{wrong}"
    );
    let missing = mirror.call::<()>("order", ()).await.unwrap_err();
    assert!(matches!(missing, Error::IncorrectSignature(_)), "{missing}");
    let unwritable = mirror.call::<()>("unwritable", ()).await.unwrap_err();
    assert_eq!(
        unwritable.as_remote().unwrap().exc_type,
        "UnserializableValueError"
    );
    cluster.stop().await;
    container.stop().await;
}

/// The bytes are output of `msgpack.packb(.., use_bin_type=True)`, msgpack 1.1 for Python.
#[tokio::test]
async fn message_pack_matches_kombus_bytes() {
    let broker = support::broker().await;
    let container = serve(config(&broker, "json", &["json", "msgpack"])).await;
    let mut peer = Peer::new(&broker).await;
    let mut ask = async |method: &str, body: &[u8]| {
        let properties = Properties {
            content_type: Some("application/x-msgpack".into()),
            content_encoding: Some("binary".into()),
            ..Properties::default()
        };
        peer.ask_with(&format!("mirror.{method}"), properties, body)
            .await
    };

    let request = b"\x82\xa4args\x91\xc4\x03abc\xa6kwargs\x80";
    let reply = ask("upside_down", request).await;
    assert_eq!(&reply.body[..], b"\x82\xa6result\xc4\x03cba\xa5error\xc0");
    let properties = &reply.properties;
    assert_eq!(
        properties.content_type.as_deref(),
        Some("application/x-msgpack")
    );
    assert_eq!(properties.content_encoding.as_deref(), Some("binary"));
    assert!(properties.headers.is_empty());

    // Keys in another order, an unknown key, a named argument.
    let request =
        b"\x83\xa6kwargs\x81\xa5value\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\xa4args\x90\x01\x02";
    let reply = ask("any", request).await;
    assert_eq!(
        &reply.body[..],
        b"\x82\xa6result\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\xa5error\xc0"
    );

    let reply = ask("fail", b"\x82\xa4args\x90\xa6kwargs\x80").await;
    let codec = Codec::named("msgpack").unwrap();
    let reply: Json = codec
        .decode(&reply.properties, &reply.body)
        .unwrap()
        .read()
        .unwrap();
    assert_eq!(reply["error"]["exc_type"], "Broken");
    assert_eq!(reply["result"], Json::Null);
    container.stop().await;
}

#[tokio::test]
async fn a_reply_has_the_format_of_its_request() {
    let broker = support::broker().await;
    let container = serve(config(&broker, "json", &["json", "msgpack"])).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let json = cluster.service("mirror");
    let packed = json.with_serializer("msgpack").unwrap();

    let bytes: Json = json.call("upside_down", ([1, 2],)).await.unwrap();
    assert_eq!(bytes, json!([2, 1]));
    // JSON has no bytes type, so receiving bytes proves the format.
    let bytes: ByteBuf = packed.call("upside_down", ([1, 2],)).await.unwrap();
    assert_eq!(bytes.as_slice(), [2, 1]);
    let map: BTreeMap<i64, bool> = packed
        .call("any", (BTreeMap::from([(5, true)]),))
        .await
        .unwrap();
    assert!(map[&5]);

    let error = json.with_serializer("mesgpack").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Please register a serializer for \"mesgpack\" format"),
        "{error}"
    );
    cluster.stop().await;
    container.stop().await;
}

#[tokio::test]
async fn a_proxy_can_use_another_format_than_its_service() {
    #[derive(Dependencies)]
    struct Front {
        #[dependency(RpcProxy::new("mirror").serializer("msgpack").compression(Compression::Bzip2))]
        mirror: ServiceProxy,
    }

    #[service("front")]
    impl Front {
        #[rpc]
        async fn twice(&self, text: String) -> Result<String> {
            let bytes: ByteBuf = self
                .mirror
                .call("upside_down", (ByteBuf::from(text.repeat(2)),))
                .await?;
            Ok(String::from_utf8(bytes.into_vec())?)
        }
    }

    let broker = support::broker().await;
    let mirror = serve(config(&broker, "msgpack", &["msgpack"])).await;
    let front = Container::new::<Front>(broker.config()).unwrap();
    front.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let twice: String = cluster
        .service("front")
        .call("twice", ("ab",))
        .await
        .unwrap();
    assert_eq!(twice, "baba");
    cluster.stop().await;
    front.stop().await;
    mirror.stop().await;
}

/// JSON in capital letters, as in upstream's tests.
struct UpperJson;

impl Serializer for UpperJson {
    fn name(&self) -> &str {
        "upper-json"
    }

    fn content_type(&self) -> &str {
        "application/x-upper-json"
    }

    fn encode(&self, value: &dyn DynSerialize) -> Result<Vec<u8>, FormatError> {
        Ok(serialization::to_vec(value)?.to_ascii_uppercase())
    }

    fn decode(&self, body: &[u8]) -> Result<Payload, FormatError> {
        assert!(!body.starts_with(b"PANIC"), "as asked");
        serialization::from_slice(&body.to_ascii_lowercase())
    }
}

#[tokio::test]
async fn registered_formats() {
    serialization::register(UpperJson);
    let broker = support::broker().await;
    let container = serve(config(&broker, "upper-json", &["upper-json", "json"])).await;
    let mut peer = Peer::new(&broker).await;
    let request = br#"{"ARGS": [{"A": ["X", 1.5, NULL]}], "KWARGS": {}}"#;
    let reply = peer
        .ask("mirror.any", "application/x-upper-json", request)
        .await;
    assert_eq!(
        &reply.body[..],
        br#"{"RESULT": {"A": ["X", 1.5, NULL]}, "ERROR": NULL}"#
    );
    assert_eq!(
        reply.properties.content_type.as_deref(),
        Some("application/x-upper-json")
    );

    // A failing or panicking serializer fails the message, not the service.
    let reply = peer
        .ask("mirror.any", "application/x-upper-json", b"PANIC")
        .await;
    assert!(
        reply
            .body
            .starts_with(br#"{"RESULT": NULL, "ERROR": {"EXC_TYPE": "MALFORMEDREQUEST""#),
        "{:?}",
        reply.body
    );

    let upper = Cluster::connect(&broker.config().with("serializer", "upper-json"))
        .await
        .unwrap();
    let result: Vec<String> = upper
        .service("mirror")
        .call_with("any", &json!([]), &json!({"value": ["Text"]}))
        .await
        .unwrap();
    assert_eq!(result, ["text"]);
    upper.stop().await;
    container.stop().await;
}

/// Each is answered if possible and acknowledged; the next request is served.
#[tokio::test]
async fn malformed_messages_do_not_stop_the_service() {
    let broker = support::broker().await;
    let container = serve(config(&broker, "json", &["json", "msgpack"])).await;
    let mut peer = Peer::new(&broker).await;

    let request = br#"{"args": [1], "kwargs": {}}"#;
    let packed = b"\x82\xa4args\x91\x01\xa6kwargs\x80";
    let deep = [&b"\x82\xa4args"[..], &[0x91; 100_000], b"\x01"].concat();
    let long = b"\x82\xa4args\xdd\xff\xff\xff\xff\x01";
    let nested = [&br#"{"args": "#[..], &[b'['; 100_000]].concat();
    const PACK: &str = "application/x-msgpack";
    const JSON: &str = "application/json";
    for (content_type, compression, body, exc_type, text) in [
        (PACK, "", &b""[..], "MalformedRequest", "empty"),
        (
            PACK,
            "",
            &packed[..9],
            "MalformedRequest",
            "it ends within a value",
        ),
        (
            PACK,
            "",
            &deep,
            "MalformedRequest",
            "nested more than 128 levels deep",
        ),
        (PACK, "", long, "MalformedRequest", "it ends within a value"),
        (PACK, "", b"\xc1", "MalformedRequest", "0xc1"),
        (PACK, "", b"\x01\x01", "MalformedRequest", "1 more follow"),
        (
            PACK,
            "",
            b"\x93\x01\x02\x03",
            "MalformedRequest",
            "not an object with `args` and `kwargs`: it is a list",
        ),
        (PACK, "", b"\xc0", "MalformedRequest", "it is null"),
        (
            PACK,
            "",
            b"\xc7\x01\x05x",
            "MalformedRequest",
            "it is an extension type",
        ),
        (
            PACK,
            "",
            b"\x81\xa4args\x90",
            "MalformedRequest",
            "missing `args` or `kwargs`",
        ),
        (
            PACK,
            "",
            b"\x82\xa4args\xc0\xa6kwargs\x80",
            "IncorrectSignature",
            "`args`",
        ),
        (
            PACK,
            "",
            b"\x82\xa4args\x07\xa6kwargs\x80",
            "IncorrectSignature",
            "an integer",
        ),
        (
            PACK,
            "",
            b"\x82\xa4args\x90\xa6kwargs\x90",
            "IncorrectSignature",
            "a list",
        ),
        (
            PACK,
            "",
            b"\x82\xa4args\x90\xa6kwargs\x81\x01\x02",
            "IncorrectSignature",
            "must be strings",
        ),
        (JSON, "", b"", "MalformedRequest", "empty"),
        (
            JSON,
            "",
            &request[..15],
            "MalformedRequest",
            "not valid JSON",
        ),
        (JSON, "", &nested, "MalformedRequest", "not valid JSON"),
        (
            JSON,
            "application/x-gzip",
            request,
            "MalformedRequest",
            "not valid application/x-gzip",
        ),
        (
            JSON,
            "application/x-rot13",
            request,
            "MalformedRequest",
            "application/x-rot13",
        ),
        (
            "application/x-yaml",
            "",
            b"args: []",
            "MalformedRequest",
            "send application/json or application/x-msgpack",
        ),
        ("", "", b"", "MalformedRequest", "content type ``"),
        (
            "application/data",
            "",
            request,
            "MalformedRequest",
            "not an object",
        ),
        ("application/text", "", b"\xff", "MalformedRequest", "utf-8"),
    ] {
        let mut properties = Properties {
            content_type: Some(content_type.into()),
            ..Properties::default()
        };
        if !compression.is_empty() {
            properties.headers.insert("compression", compression);
        }
        let reply = peer.ask_with("mirror.any", properties, body).await;
        // The reply has the format of the request if it is known.
        let wanted = if content_type == PACK { PACK } else { JSON };
        assert_eq!(reply.properties.content_type.as_deref(), Some(wanted));
        let codec = Codec::of(&config(&broker, "json", &["json", "msgpack"])).unwrap();
        let payload = codec.decode(&reply.properties, &reply.body).unwrap();
        let reply: Json = payload.read().unwrap();
        let error = &reply["error"];
        let value = error["value"].as_str().unwrap_or_default();
        assert_eq!(
            error["exc_type"], exc_type,
            "{content_type} {body:?}: {value}"
        );
        assert!(value.contains(text), "{content_type} {body:?}: {value}");
    }

    let reply = peer.ask("mirror.any", JSON, request).await;
    assert_eq!(json_of(&reply)["result"], 1);
    container.stop().await;
    let left = peer
        .channel
        .queue_declare(&Queue::new("rpc-mirror"))
        .await
        .unwrap();
    assert_eq!(left.messages, 0);
}

#[tokio::test]
async fn a_compressed_request_is_read_and_a_bomb_is_rejected() {
    let broker = support::broker().await;
    let limited = config(&broker, "json", &["json"]).with("max_decompressed_size", 100_000);
    let container = serve(limited).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    for compression in [Compression::Gzip, Compression::Bzip2] {
        let mirror = cluster.service("mirror").with_compression(compression);
        let text = "grün".repeat(5_000);
        let echo: String = mirror.call("any", (&text,)).await.unwrap();
        assert_eq!(echo, text);

        let bomb = mirror.call::<Json>("any", ("0".repeat(200_000),)).await;
        let error = bomb.unwrap_err();
        assert!(matches!(error, Error::MalformedRequest(_)), "{error}");
        assert!(
            error
                .to_string()
                .contains("more than 100000 when decompressed"),
            "{error}"
        );
    }
    cluster.stop().await;
    container.stop().await;
}
