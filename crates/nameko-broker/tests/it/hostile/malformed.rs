use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic, connection, queue},
    types::FieldTable,
};
use nameko_broker::Broker;

use super::{addr, assert_serves};
use crate::{
    peer::{HEADER, Peer, encoded, raw},
    support::*,
};

#[tokio::test]
async fn other_protocols_get_the_supported_protocol_header() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"AMQP\0\x01\0\0",
        b"AMQP\x03\x01\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01",
        b"x",
    ] {
        let mut peer = Peer::connect(&addr(&broker)).await;
        peer.write(greeting).await;
        assert_eq!(peer.read_to_end().await, HEADER, "{greeting:?}");
    }
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn garbage_closes_only_the_peers_own_connection() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let garbage: Vec<u8> = (0..10_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut peer = Peer::connect(&addr(&broker)).await;
    peer.write(&[HEADER, &garbage].concat()).await;
    peer.read_to_end().await;
    let mut peer = Peer::open(&addr(&broker), 0).await;
    peer.write(&garbage).await;
    assert_eq!(peer.closed_with().await.map(|(code, _)| code), Some(501));
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    peer.write(&raw(1, 1, &garbage[..100])).await;
    assert_eq!(peer.closed_with().await.map(|(code, _)| code), Some(503));
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn invalid_frames_are_refused_with_specific_codes() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let publish = |exchange: &str| {
        encoded(&AMQPFrame::Method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
                exchange: exchange.into(),
                routing_key: "k".into(),
                mandatory: false,
                immediate: false,
            })),
        ))
    };
    let header =
        |class: u8, size: u8| raw(2, 1, &[0, class, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0]);
    let declare = encoded(&AMQPFrame::Method(
        1,
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare::default())),
    ));
    for (case, bytes, code) in [
        (
            "an oversized frame",
            vec![1, 0, 1, 0xff, 0xff, 0xff, 0xff],
            501,
        ),
        ("no end marker", vec![1, 0, 1, 0, 0, 0, 1, 5, 5], 501),
        ("an unknown frame type", vec![7, 0, 1, 0, 0, 0, 0, 206], 501),
        ("a heartbeat on a channel", raw(8, 1, &[]), 505),
        ("an unannounced body", raw(3, 1, b"x"), 505),
        ("an unannounced header", header(60, 1), 505),
        ("content on channel 0", raw(3, 0, b"x"), 505),
        (
            "a method within content",
            [publish(""), declare.clone()].concat(),
            505,
        ),
        (
            "a method within a body",
            [publish(""), header(60, 5), declare.clone()].concat(),
            505,
        ),
        (
            "a header of another class",
            [publish(""), header(10, 5)].concat(),
            505,
        ),
        (
            "more body than announced",
            [publish(""), header(60, 1), raw(3, 1, b"xy")].concat(),
            501,
        ),
        (
            "a truncated header",
            [publish(""), raw(2, 1, &[0, 60, 0])].concat(),
            502,
        ),
        (
            "a truncated method",
            raw(1, 1, &[0, 50, 0, 10, 0, 0, 9]),
            502,
        ),
        (
            "a method with trailing bytes",
            raw(1, 1, &[0, 20, 0, 20, 1, 0, 0]),
            502,
        ),
        ("an unknown method", raw(1, 1, &[0, 60, 0, 99]), 503),
        ("a method of the server", raw(1, 1, &[0, 60, 0, 72, 0]), 503),
        ("a channel opened twice", raw(1, 1, &[0, 20, 0, 10, 0]), 504),
        (
            "a channel never opened",
            raw(1, 9, &declare[7..declare.len() - 1]),
            504,
        ),
        (
            "a connection opened twice",
            raw(1, 0, &[0, 10, 0, 40, 1, b'/', 0, 0]),
            504,
        ),
        (
            "a name that is not UTF-8",
            raw(1, 1, &[0, 50, 0, 10, 0, 0, 1, 0xff, 0, 0, 0, 0, 0]),
            502,
        ),
    ] {
        let mut peer = Peer::with_channel(&addr(&broker)).await;
        peer.write(&bytes).await;
        let closed = peer.closed_with().await;
        assert_eq!(
            closed.as_ref().map(|(code, _)| *code),
            Some(code),
            "{case}: {closed:?}"
        );
    }
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn streams_are_refused_with_a_reason() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let connection = TestEnv::new(broker.uri()).connect().await;
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions {
        durable: true,
        ..lapin::options::QueueDeclareOptions::default()
    };
    let arguments = table([("x-queue-type", text("stream"))]);
    let declared = with_timeout(channel.queue_declare("s".into(), options, arguments)).await;
    let expected = "NOT_IMPLEMENTED - the embedded broker has no streams (x-queue-type 'stream'); use RabbitMQ for them";
    assert_eq!(refusal(&declared.unwrap_err()), (540, expected.to_owned()));
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn deeply_nested_tables_do_not_overflow_the_stack() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let nested = |levels: usize| {
        let mut table = Vec::new();
        for _ in 0..levels {
            let mut outer = vec![0, b'F'];
            outer.extend((table.len() as u32).to_be_bytes());
            outer.extend(table);
            table = outer;
        }
        let mut sized = (table.len() as u32).to_be_bytes().to_vec();
        sized.extend(table);
        sized
    };
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    let declare = [&[0, 50, 0, 10, 0, 0, 0, 8][..], &nested(20_000)].concat();
    peer.write(&raw(1, 1, &declare)).await;
    assert_eq!(peer.closed_with().await.map(|(code, _)| code), Some(502));
    let mut peer = Peer::connect(&addr(&broker)).await;
    peer.write(HEADER).await;
    peer.frame().await.unwrap();
    // Before tuning, a frame of this size is refused.
    peer.write(&raw(1, 0, &[&[0, 10, 0, 11][..], &nested(20_000)].concat()))
        .await;
    assert_eq!(peer.closed_with().await, None);
    // The login table of a smaller frame is checked too.
    let mut peer = Peer::connect(&addr(&broker)).await;
    peer.write(HEADER).await;
    peer.frame().await.unwrap();
    peer.connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: "AMQPLAIN".into(),
        response: nested(600)[4..].to_vec().into(),
        locale: "en_US".into(),
    }))
    .await;
    assert_eq!(peer.closed_with().await, None);
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::connect(&addr(&broker)).await;
    peer.stream.set_nodelay(true).unwrap();
    for byte in HEADER {
        peer.write(&[*byte]).await;
    }
    peer.frame().await.unwrap();
    let start_ok = encoded(&AMQPFrame::Method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: "\0guest\0guest".into(),
            locale: "en_US".into(),
        })),
    ));
    for byte in start_ok {
        peer.write(&[byte]).await;
    }
    let tune = peer.frame().await;
    assert!(matches!(
        tune,
        Some(AMQPFrame::Method(
            0,
            AMQPClass::Connection(connection::AMQPMethod::Tune(_))
        ))
    ));
    broker.stop().await;
}

#[tokio::test]
async fn announced_bodies_use_no_memory_until_they_arrive() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    let publish = basic::Publish {
        exchange: "".into(),
        routing_key: "k".into(),
        mandatory: false,
        immediate: false,
    };
    peer.method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)))
        .await;
    peer.write(&raw(
        2,
        1,
        &[
            0, 60, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
        ],
    ))
    .await;
    let text = "PRECONDITION_FAILED - message size 18446744073709551615 is larger than configured max size 16777216";
    assert_eq!(peer.closed_with().await, Some((406, text.to_owned())));
    broker.stop().await;
}
