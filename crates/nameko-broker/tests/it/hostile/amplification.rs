use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, exchange},
    types::FieldTable,
};
use nameko_broker::Broker;

use super::{addr, assert_serves};
use crate::{
    peer::{Peer, encoded},
    support::*,
};

#[tokio::test]
async fn a_long_chain_of_auto_delete_exchanges_does_not_overflow_the_stack() {
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
    // The last binding of each leads to the next.
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

/// Declares a queue whose messages expire at once and are dead-lettered to an exchange.
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
async fn dead_letter_cycles_end_even_with_a_forged_history() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    declare_forwarding_queue(&channel, "one", "", Some("two")).await;
    declare_forwarding_queue(&channel, "two", "", Some("one")).await;
    // A forged rejection makes the cycle look intended.
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
        wait_until("the message is gone", || async {
            channel.ready_count(queue).await == 0
        })
        .await;
    }
    assert_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn multiplying_dead_letters_do_not_starve_other_clients() {
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
    wait_until("all messages arrive", || {
        wait_for_message(format!("left{LAYERS}"))
    })
    .await;
    wait_until("all messages arrive", || {
        wait_for_message(format!("right{LAYERS}"))
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn headers_of_dead_letters_cannot_grow_without_bound() {
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
    // Each death adds all keys to the headers.
    let keys: Vec<_> = (0..500).map(|_| text(&"k".repeat(100))).collect();
    let headers = table([("CC", lapin::types::AMQPValue::FieldArray(keys.into()))]);
    let properties = lapin::BasicProperties::default().with_headers(headers);
    channel.send_with("", "first", "m", properties).await;
    wait_until("the message arrives", || async {
        channel.ready_count("after-one").await == 1
    })
    .await;
    assert_eq!(channel.ready_count("after-two").await, 0);
    assert_serves(&broker).await;
    broker.stop().await;
}
