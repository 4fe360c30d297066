use std::time::{Duration, Instant};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic, queue},
};
use nameko_broker::Broker;
use tokio::io::AsyncWriteExt;

use super::{addr, assert_serves};
use crate::{
    peer::{HEADER, Peer, encoded, raw},
    support::*,
};

#[tokio::test]
async fn unfinished_handshakes_time_out() {
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
    wait_until("all connections are closed", || async {
        broker.stats().connections == 0
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn silent_peers_get_heartbeats_and_are_closed_after_two_intervals() {
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
async fn a_consumer_that_does_not_read_delays_nobody_and_is_closed() {
    let broker = Broker::builder()
        .send_timeout(Duration::from_millis(500))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("q").await;
    let mut slow = Peer::with_channel(&addr(&broker)).await;
    let consume = basic::Consume {
        queue: "q".into(),
        ..basic::Consume::default()
    };
    slow.method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
        .await;
    wait_until("the consumer is added", || async {
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
    // It was sent as much as the socket buffers hold; the rest stays ready.
    let stats = broker.stats();
    let queue = stats.queues.values().next().unwrap();
    assert!(queue.messages > 10, "{queue:?}");
    wait_until("the peer is closed", || async {
        broker.stats().connections == 1
    })
    .await;
    assert_eq!(channel.ready_count("q").await, 40);
    broker.stop().await;
}

#[tokio::test]
async fn requests_of_a_peer_that_does_not_read_replies_are_not_buffered() {
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
    // Sends until the broker stops reading and closes the connection.
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
        "{sent_bytes} bytes were read from a peer that does not read"
    );
    wait_until("the connection is closed", || async {
        broker.stats().connections == 0
    })
    .await;
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn clients_may_publish_megabytes_before_they_read_deliveries() {
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
    // 20 MB, far more than the socket buffers hold. Both sides would wait for each other if either
    // stopped reading.
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
async fn returned_messages_of_a_peer_that_does_not_read_are_not_buffered() {
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
        // The socket buffers hold some, but the broker does not buffer more than it can send.
        assert!(
            sent < 50 << 20,
            "{sent} bytes were read from a peer that does not read"
        );
    }
    wait_until("the connection is closed", || async {
        broker.stats().connections == 0
    })
    .await;
    broker.stop().await;
}
