use std::time::{Duration, Instant};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic, connection, exchange, queue},
    types::FieldTable,
};
use nameko_broker::Broker;
use tokio::io::AsyncWriteExt;

use crate::{
    peer::{HEADER, Peer, encoded, raw},
    support::*,
};

fn addr(broker: &Broker) -> String {
    broker.addr().to_string()
}

/// That the broker serves others as if nothing had happened.
async fn assert_serves(broker: &Broker) {
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("still").await;
    channel.send("", "still", "well").await;
    assert_eq!(channel.drain("still").await, ["well"]);
    connection.close(200, "".into()).await.unwrap();
}

#[tokio::test]
async fn peers_that_speak_another_protocol_are_told_which_one_is_spoken() {
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
async fn garbage_at_any_time_costs_only_the_peers_own_connection() {
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
async fn frames_that_cannot_be_are_refused_with_the_code_that_says_why() {
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
    for (what, bytes, code) in [
        (
            "a size no frame has",
            vec![1, 0, 1, 0xff, 0xff, 0xff, 0xff],
            501,
        ),
        ("no end mark", vec![1, 0, 1, 0, 0, 0, 1, 5, 5], 501),
        ("an unknown kind", vec![7, 0, 1, 0, 0, 0, 0, 206], 501),
        ("a heartbeat on a channel", raw(8, 1, &[]), 505),
        ("a body that nobody announced", raw(3, 1, b"x"), 505),
        ("a header that nobody announced", header(60, 1), 505),
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
            "a header cut short",
            [publish(""), raw(2, 1, &[0, 60, 0])].concat(),
            502,
        ),
        (
            "a method cut short",
            raw(1, 1, &[0, 50, 0, 10, 0, 0, 9]),
            502,
        ),
        (
            "a method with more than belongs to it",
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
        ("a transaction", raw(1, 1, &[0, 90, 0, 10]), 540),
    ] {
        let mut peer = Peer::with_channel(&addr(&broker)).await;
        peer.write(&bytes).await;
        let closed = peer.closed_with().await;
        assert_eq!(
            closed.as_ref().map(|(code, _)| *code),
            Some(code),
            "{what}: {closed:?}"
        );
    }
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_is_refused_and_the_reason_told() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let connection = TestEnv::new(broker.uri()).connect().await;
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions {
        durable: true,
        ..lapin::options::QueueDeclareOptions::default()
    };
    let arguments = table([("x-queue-type", text("stream"))]);
    let declared = with_timeout(channel.queue_declare("s".into(), options, arguments)).await;
    let told = "NOT_IMPLEMENTED - the embedded broker has no streams (x-queue-type 'stream'); use RabbitMQ for them";
    assert_eq!(refusal(&declared.unwrap_err()), (540, told.to_owned()));
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
    // Before the connection is tuned not even a frame of that size is taken.
    peer.write(&raw(1, 0, &[&[0, 10, 0, 11][..], &nested(20_000)].concat()))
        .await;
    assert_eq!(peer.closed_with().await, None);
    // A login table within the size is measured like any other.
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
async fn frames_may_come_byte_by_byte() {
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
async fn a_handshake_that_does_not_finish_is_closed() {
    let broker = Broker::builder()
        .handshake_timeout(Duration::from_millis(200))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    for greeting in [&b""[..], b"AMQP", HEADER] {
        let mut peer = Peer::connect(&addr(&broker)).await;
        peer.write(greeting).await;
        let begun = Instant::now();
        peer.read_to_end().await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    wait_until("all closed", || async { broker.stats().connections == 0 }).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_silent_peer_is_closed_after_two_intervals_and_gets_heartbeats_until_then() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let begun = Instant::now();
    let mut peer = Peer::open(&addr(&broker), 2).await;
    let mut heartbeats = 0;
    while let Some(frame) = peer.frame().await {
        assert_eq!(frame, AMQPFrame::Heartbeat);
        heartbeats += 1;
    }
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(4) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert!((2..=4).contains(&heartbeats), "{heartbeats}");
    broker.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody_and_is_closed() {
    let broker = Broker::builder()
        .send_timeout(Duration::from_millis(500))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("q").await;
    let mut deaf = Peer::with_channel(&addr(&broker)).await;
    let consume = basic::Consume {
        queue: "q".into(),
        ..basic::Consume::default()
    };
    deaf.method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
        .await;
    wait_until("consuming", || async {
        broker
            .stats()
            .queues
            .values()
            .any(|queue| queue.consumers == 1)
    })
    .await;
    let body = "x".repeat(1 << 20);
    for _ in 0..40 {
        channel.send("", "q", &body).await;
    }
    // It was sent what fits into the buffers between, the rest waits for somebody else.
    let stats = broker.stats();
    let queue = stats.queues.values().next().unwrap();
    assert!(queue.messages > 10, "{queue:?}");
    wait_until("the deaf peer is closed", || async {
        broker.stats().connections == 1
    })
    .await;
    assert_eq!(channel.ready_count("q").await, 40);
    broker.stop().await;
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_is_not_read_either() {
    let broker = Broker::builder()
        .send_timeout(Duration::from_millis(500))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    let ask = encoded(&AMQPFrame::Method(
        1,
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: "a-rather-long-name-so-that-answers-are-larger-than-questions".into(),
            ..queue::Declare::default()
        })),
    ))
    .repeat(1000);
    // It goes on asking until the broker takes no more and ends it.
    let sent_bytes = with_timeout(async {
        let mut sent_bytes = 0;
        while peer.stream.write_all(&ask).await.is_ok() {
            sent_bytes += ask.len();
        }
        sent_bytes
    })
    .await;
    assert!(
        sent_bytes < 100 << 20,
        "{sent_bytes} bytes were read from a peer that reads nothing"
    );
    wait_until("closed", || async { broker.stats().connections == 0 }).await;
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn an_announced_body_costs_nothing_until_it_comes() {
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
    let text = "PRECONDITION_FAILED - message size 18446744073709551615 is larger than configured max size 134217728";
    assert_eq!(peer.closed_with().await, Some((406, text.to_owned())));
    broker.stop().await;
}

#[tokio::test]
async fn a_peer_may_publish_a_lot_before_it_reads_what_that_brings() {
    const MESSAGES: usize = 20_000;
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    let declare = queue::Declare {
        queue: "q".into(),
        ..queue::Declare::default()
    };
    peer.method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
        .await;
    let consume = basic::Consume {
        queue: "q".into(),
        no_ack: true,
        ..basic::Consume::default()
    };
    peer.method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
        .await;
    let publish = basic::Publish {
        exchange: "".into(),
        routing_key: "q".into(),
        mandatory: false,
        immediate: false,
    };
    let message = [
        encoded(&AMQPFrame::Method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Publish(publish)),
        )),
        raw(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0]),
        raw(3, 1, &[b'x'; 1000]),
    ]
    .concat();
    // 20 MB, far more than fits between: each side would wait for the other if one of them insisted.
    for _ in 0..MESSAGES {
        peer.write(&message).await;
    }
    let mut received = 0;
    while received < MESSAGES {
        if let AMQPFrame::Body(_, body) = peer.frame().await.unwrap() {
            assert_eq!(body.len(), 1000);
            received += 1;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_what_comes_back_to_it_is_not_read_either() {
    let broker = Broker::builder()
        .send_timeout(Duration::from_millis(500))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let on_channel = |method| encoded(&AMQPFrame::Method(1, AMQPClass::Basic(method)));
    let publish = |routing_key: &str| {
        let publish = basic::AMQPMethod::Publish(basic::Publish {
            routing_key: routing_key.into(),
            mandatory: true,
            ..basic::Publish::default()
        });
        let header = raw(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0]);
        let body = raw(3, 1, &[b'x'; 1 << 16]).repeat(16);
        [on_channel(publish), header, body].concat()
    };
    let get = on_channel(basic::AMQPMethod::Get(basic::Get {
        queue: "q".into(),
        no_ack: true,
    }));
    for message in [publish("nobody"), [publish("q"), get].concat()] {
        let mut peer = Peer::with_channel(&addr(&broker)).await;
        let declare = queue::AMQPMethod::Declare(queue::Declare {
            queue: "q".into(),
            exclusive: true,
            ..queue::Declare::default()
        });
        peer.method(1, AMQPClass::Queue(declare)).await;
        let sent = with_timeout(async {
            let mut sent = 0;
            while peer.stream.write_all(&message).await.is_ok() {
                sent += message.len();
            }
            sent
        })
        .await;
        // Some is in the sockets' buffers, but the broker does not keep what it can't send back.
        assert!(
            sent < 50 << 20,
            "{sent} bytes were read from a peer that reads nothing"
        );
    }
    wait_until("closed", || async { broker.stats().connections == 0 }).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_long_chain_of_exchanges_that_delete_themselves_does_not_overflow_the_stack() {
    const LINKS: usize = 5_000;
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::with_channel(&addr(&broker)).await;
    let mut chain = Vec::new();
    let mut add = |method| {
        let frame = AMQPFrame::Method(1, AMQPClass::Exchange(method));
        chain.extend(encoded(&frame));
    };
    for link in 0..=LINKS {
        add(exchange::AMQPMethod::Declare(exchange::Declare {
            exchange: format!("x{link}").into(),
            kind: "fanout".into(),
            auto_delete: true,
            nowait: true,
            ..exchange::Declare::default()
        }));
        if link > 0 {
            add(exchange::AMQPMethod::Bind(exchange::Bind {
                source: format!("x{}", link - 1).into(),
                destination: format!("x{link}").into(),
                nowait: true,
                ..exchange::Bind::default()
            }));
        }
    }
    // Each one's last binding leads to the next.
    add(exchange::AMQPMethod::Delete(exchange::Delete {
        exchange: format!("x{LINKS}").into(),
        ..exchange::Delete::default()
    }));
    add(exchange::AMQPMethod::Declare(exchange::Declare {
        exchange: "x0".into(),
        passive: true,
        ..exchange::Declare::default()
    }));
    peer.write(&chain).await;
    let deleted = peer.frame().await;
    assert!(
        matches!(
            deleted,
            Some(AMQPFrame::Method(
                1,
                AMQPClass::Exchange(exchange::AMQPMethod::DeleteOk(_))
            ))
        ),
        "{deleted:?}"
    );
    assert_eq!(peer.closed_with().await.map(|(code, _)| code), Some(404));
    broker.stop().await;
}

/// Declares queues whose messages expire at once and go on to an exchange.
async fn declare_forwarding_queue(
    channel: &lapin::Channel,
    queue: &str,
    exchange: &str,
    key: Option<&str>,
) {
    let mut arguments = table([
        ("x-message-ttl", int(0)),
        ("x-dead-letter-exchange", text(exchange)),
    ]);
    if let Some(key) = key {
        arguments.insert("x-dead-letter-routing-key".into(), text(key));
    }
    channel.declare_with(queue, arguments).await;
}

#[tokio::test]
async fn a_circle_of_dead_letters_ends_even_when_its_history_is_forged() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    declare_forwarding_queue(&channel, "one", "", Some("two")).await;
    declare_forwarding_queue(&channel, "two", "", Some("one")).await;
    // An entry of a rejection between the others makes the way round look like somebody's doing.
    let forged = FieldTable::from(std::collections::BTreeMap::from([
        ("queue".into(), text("elsewhere")),
        ("reason".into(), text("rejected")),
    ]));
    let deaths = vec![lapin::types::AMQPValue::FieldTable(forged)];
    let headers = table([(
        "x-death",
        lapin::types::AMQPValue::FieldArray(deaths.into()),
    )]);
    let properties = lapin::BasicProperties::default().with_headers(headers);
    channel.send_with("", "one", "m", properties).await;
    for queue in ["one", "two"] {
        wait_until("it is gone", || async {
            channel.ready_count(queue).await == 0
        })
        .await;
    }
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn dead_letters_that_multiply_leave_others_their_turn() {
    const LAYERS: usize = 10;
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    for layer in 0..=LAYERS {
        channel
            .declare_exchange(&format!("x{layer}"), lapin::ExchangeKind::Fanout)
            .await;
        for side in ["left", "right"] {
            let queue = format!("{side}{layer}");
            if layer == LAYERS {
                channel.declare(&queue).await;
            } else {
                declare_forwarding_queue(&channel, &queue, &format!("x{}", layer + 1), None).await;
            }
            channel.bind(&queue, &format!("x{layer}"), "").await;
        }
    }
    channel.send("x0", "", "m").await;
    assert_serves(&broker).await;
    let wait_for_message = |queue: String| {
        let channel = &channel;
        async move { channel.ready_count(&queue).await == 1 << LAYERS }
    };
    wait_until("all messages arrived", || {
        wait_for_message(format!("left{LAYERS}"))
    })
    .await;
    wait_until("all messages arrived", || {
        wait_for_message(format!("right{LAYERS}"))
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_message_does_not_grow_without_end_on_its_way_through_dead_letters() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel
        .declare_exchange("x1", lapin::ExchangeKind::Fanout)
        .await;
    channel
        .declare_exchange("x2", lapin::ExchangeKind::Fanout)
        .await;
    declare_forwarding_queue(&channel, "first", "x1", None).await;
    declare_forwarding_queue(&channel, "second", "x2", None).await;
    channel.declare("after-one").await;
    channel.declare("after-two").await;
    for (queue, exchange) in [("second", "x1"), ("after-one", "x1"), ("after-two", "x2")] {
        channel.bind(queue, exchange, "").await;
    }
    // Each death tells of all keys once more.
    let keys: Vec<_> = (0..500).map(|_| text(&"k".repeat(100))).collect();
    let headers = table([("CC", lapin::types::AMQPValue::FieldArray(keys.into()))]);
    let properties = lapin::BasicProperties::default().with_headers(headers);
    channel.send_with("", "first", "m", properties).await;
    wait_until("the message arrived", || async {
        channel.ready_count("after-one").await == 1
    })
    .await;
    assert_eq!(channel.ready_count("after-two").await, 0);
    assert_serves(&broker).await;
    broker.stop().await;
}
