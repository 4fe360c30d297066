//! The AMQP client: declaring, publishing, consuming, fetching.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use nameko_amqp::{
    ConnectOptions, Connection, Consumers, Error, Exchange, Properties, Publish, PublishError,
    Publisher, Queue, Retry, Table, Value,
};

use crate::support::{broker, connect_options, message, soon, subscription, temporary};

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let exchange = Exchange {
        auto_delete: true,
        durable: false,
        ..Exchange::topic("exchange")
    };
    let queue = temporary("queue").bind(exchange.clone(), "key.*");
    let (subscription, mut deliveries) = subscription(queue);
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    assert!(consumers.is_connected());

    let headers = Table::from([
        ("null", Value::Null),
        ("bool", true.into()),
        ("int", 7.into()),
        ("big", i64::MIN.into()),
        ("double", 0.5.into()),
        ("text", "grüß dich".into()),
        ("time", Value::Timestamp(1_700_000_000)),
        ("list", vec!["a", "b"].into()),
        (
            "table",
            Table::from([("deep", Table::from([("er", 1)]))]).into(),
        ),
    ]);
    let properties = Properties {
        content_type: Some("application/json".into()),
        content_encoding: Some("utf-8".into()),
        headers,
        delivery_mode: Some(2),
        priority: Some(0),
        correlation_id: Some("id".into()),
        reply_to: Some("me".into()),
        expiration: Some("10000".into()),
        message_id: Some("message".into()),
        timestamp: Some(1),
        type_: Some("type".into()),
        user_id: Some("guest".into()),
        app_id: Some("app".into()),
        cluster_id: None,
    };
    let sent = Publish {
        properties,
        ..message(&exchange.name, "key.word", r#"{"args": []}"#)
    };
    let publisher = Publisher::shared(&connect_options(&broker));
    soon(publisher.publish(sent.clone(), None)).await.unwrap();

    let got = soon(deliveries.recv()).await.unwrap();
    assert_eq!(got.body, sent.body);
    assert_eq!(got.properties, sent.properties);
    assert_eq!(
        (&*got.exchange, got.routing_key.as_str()),
        (exchange.name.as_str(), "key.word")
    );
    assert!(!got.redelivered);
    got.acker.ack();
    soon(consumers.stop()).await;
    assert!(!consumers.is_connected());
}

#[tokio::test]
async fn fifty_megabytes_come_and_go() {
    let broker = broker().await;
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    soon(channel.confirm_select()).await.unwrap();
    let queue = Queue {
        exclusive: true,
        durable: false,
        ..Queue::new("")
    };
    let queue = soon(channel.queue_declare(&queue)).await.unwrap().name;
    let body: Bytes = (0..50 * 1024 * 1024u32)
        .map(|n| n as u8)
        .collect::<Vec<u8>>()
        .into();
    let sent = Publish {
        body: body.clone(),
        ..message("", &queue, "")
    };
    soon(soon(channel.publish(&sent)).await.unwrap())
        .await
        .unwrap();
    let got = soon(channel.get(&queue)).await.unwrap().unwrap();
    assert!(got.body == body, "the body changed on its way");
    got.acker.ack();
    assert!(soon(channel.get(&queue)).await.unwrap().is_none());
    soon(connection.close()).await;
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_wrong_exchange_fails_its_own_publishes_only() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let queue = temporary("queue");
    let missing = "missing".to_owned();
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, mut deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();

    for _ in 0..2 {
        let error = soon(publisher.publish(message(&missing, "k", ""), None))
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::Refused(_)), "{error:?}");
        assert_eq!(error.reply_code(), Some(404));
        assert!(error.to_string().contains(&missing), "{error}");
    }
    soon(publisher.publish(message("", &queue.name, "after"), None))
        .await
        .unwrap();
    assert_eq!(soon(deliveries.recv()).await.unwrap().body, "after");

    // Declared, it works, over the publisher that just failed.
    let exchange = Exchange {
        auto_delete: true,
        durable: false,
        ..Exchange::fanout(missing.clone())
    };
    let bound = Queue {
        no_declare: false,
        ..queue.clone().bind(exchange.clone(), "")
    };
    soon(publisher.declare(&[exchange], &[bound]))
        .await
        .unwrap();
    soon(publisher.publish(message(&missing, "k", "declared"), None))
        .await
        .unwrap();
    assert_eq!(soon(deliveries.recv()).await.unwrap().body, "declared");
}

#[tokio::test]
async fn a_mandatory_message_that_no_queue_takes_comes_back() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let nowhere = "nowhere".to_owned();
    let queue = temporary("queue");
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, _deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();

    let mandatory = |key: &str, id: &'static str| Publish {
        mandatory: true,
        properties: Properties {
            correlation_id: Some(id.into()),
            ..Properties::default()
        },
        ..message("", key, "x")
    };
    let (lost, found, optional) = soon(async {
        tokio::join!(
            publisher.publish(mandatory(&nowhere, "1"), None),
            publisher.publish(mandatory(&queue.name, "2"), None),
            publisher.publish(message("", &nowhere, "x"), None),
        )
    })
    .await;
    match lost {
        Err(PublishError::Unroutable {
            code: 312,
            routing_key,
            ..
        }) => assert_eq!(routing_key, nowhere),
        other => panic!("{other:?}"),
    }
    found.unwrap();
    optional.unwrap();
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_fails_alone() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let queue = temporary("queue");
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, _deliveries) = subscription(queue.clone());
    subscription.prefetch = None;
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..50 {
        let mut message = message("", &queue.name, "x");
        let bad = n == 25;
        if bad {
            message.properties.expiration = Some("tomorrow".into());
        }
        let publisher = publisher.clone();
        publishes.spawn(async move {
            (
                bad,
                publisher.publish(message, Some(Retry::default())).await,
            )
        });
    }
    while let Some(published) = soon(publishes.join_next()).await {
        match published.unwrap() {
            (true, result) => assert_eq!(result.unwrap_err().reply_code(), Some(406)),
            (false, result) => result.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_sink_costs_its_message_only() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, mut deliveries) = subscription(temporary("queue"));
    let queue = subscription.queue.name.clone();
    let good = subscription.sink.clone();
    subscription.sink = Arc::new(move |delivery| {
        assert!(delivery.body != "bad", "a mistake in a sink");
        good(delivery);
    });
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    for body in ["bad", "good"] {
        soon(publisher.publish(message("", &queue, body), None))
            .await
            .unwrap();
    }
    let delivery = soon(deliveries.recv()).await.unwrap();
    assert!(delivery.body == "good" && !delivery.redelivered);
    assert!(consumers.is_connected());
}

#[tokio::test]
async fn a_queue_that_is_another_says_so() {
    let broker = broker().await;
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    let queue = temporary("queue");
    soon(channel.queue_declare(&queue)).await.unwrap();
    let durable = Queue {
        durable: true,
        ..queue.clone()
    };
    let error = soon(channel.queue_declare(&durable)).await.unwrap_err();
    assert!(
        error.is_precondition_failed() && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains(&queue.name), "{error}");
    // The channel is of no more use and says why, the connection is.
    assert_eq!(soon(channel.closed()).await.reply_code(), Some(406));
    assert_eq!(
        soon(channel.queue_declare(&queue))
            .await
            .unwrap_err()
            .reply_code(),
        Some(406)
    );
    let channel = soon(connection.channel()).await.unwrap();
    soon(channel.queue_delete(&queue.name)).await.unwrap();
    let passive = Queue {
        passive: true,
        ..queue
    };
    assert!(
        soon(channel.queue_declare(&passive))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn what_amqp_cannot_carry_is_refused_before_it_is_sent() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let long = "x".repeat(256);
    let mut deep = Value::Null;
    for _ in 0..100 {
        deep = Value::List(vec![deep]);
    }
    let headers = |value: Value| Publish {
        properties: Properties {
            headers: Table::from([("h", value)]),
            ..Properties::default()
        },
        ..message("", "k", "")
    };
    for (bad, why) in [
        (message("", &long, ""), "routing key"),
        (message(&long, "", ""), "exchange"),
        (headers(Value::String("x".repeat(200_000))), "bytes exceed"),
        (headers(deep), "nested deeper"),
        (headers(f64::NAN.into()), "the number NaN"),
        (
            headers(Value::List(vec![f64::INFINITY.into()])),
            "the number inf",
        ),
    ] {
        let error = soon(publisher.publish(bad, None)).await.unwrap_err();
        assert!(
            matches!(error, PublishError::Refused(Error::Unsendable { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains(why), "{error}");
    }
    soon(publisher.publish(message("", "k", "still works"), None))
        .await
        .unwrap();
}

#[tokio::test]
async fn rejected_comes_again_and_acknowledged_does_not() {
    let broker = broker().await;
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    let queue = temporary("queue");
    soon(channel.queue_declare(&queue)).await.unwrap();
    soon(channel.publish(&message("", &queue.name, "m")))
        .await
        .unwrap()
        .await
        .unwrap();
    let first = soon(async {
        loop {
            if let Some(got) = channel.get(&queue.name).await.unwrap() {
                break got;
            }
        }
    })
    .await;
    assert!(!first.redelivered);
    first.acker.reject(true);
    first.acker.ack();
    let again = soon(async {
        loop {
            if let Some(got) = channel.get(&queue.name).await.unwrap() {
                break got;
            }
        }
    })
    .await;
    assert!(again.redelivered && again.body == "m");
    again.acker.ack();
    assert_eq!(soon(channel.queue_delete(&queue.name)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cancelled_subscription_leaves_its_queue() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queue = Queue {
        durable: false,
        arguments: Table::from([("x-expires", 30_000)]),
        ..Queue::new("queue")
    };
    let (first, mut deliveries) = subscription(queue.clone());
    let id = consumers.add(first);
    soon(consumers.start()).await.unwrap();
    soon(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let one = soon(deliveries.recv()).await.unwrap();
    soon(consumers.cancel(id)).await;
    one.acker.ack();
    soon(publisher.publish(message("", &queue.name, "2"), None))
        .await
        .unwrap();
    assert!(
        soon(deliveries.recv()).await.is_none(),
        "the sink is dropped, nothing came"
    );

    // While running another is added.
    let (second, mut deliveries) = subscription(queue);
    consumers.add(second);
    let two = soon(deliveries.recv()).await.unwrap();
    assert!(two.body == "2" && !two.redelivered);
    two.acker.ack();
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn prefetch_is_kept_for_each_subscription() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queues = [temporary("one"), temporary("three"), temporary("any")];
    let mut receivers = Vec::new();
    for (queue, prefetch) in queues.iter().zip([Some(1), Some(3), None]) {
        let (mut subscription, deliveries) = subscription(queue.clone());
        subscription.prefetch = prefetch;
        consumers.add(subscription);
        receivers.push(deliveries);
    }
    soon(consumers.start()).await.unwrap();
    for queue in &queues {
        for n in 0..6 {
            let message = message("", &queue.name, &n.to_string());
            soon(publisher.publish(message, None)).await.unwrap();
        }
    }
    // The last queue's last message tells that the broker has delivered what it is going to.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(soon(receivers[2].recv()).await.unwrap());
    }
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    for (at, expected) in [(0, 5), (1, 3), (2, 0)] {
        let passive = Queue {
            passive: true,
            ..queues[at].clone()
        };
        let waiting = soon(async {
            loop {
                let declared = channel.queue_declare(&passive).await.unwrap();
                if declared.messages == expected {
                    break declared.messages;
                }
            }
        });
        assert_eq!(waiting.await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_at_once_are_all_confirmed_and_delivered() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queue = temporary("queue");
    let (mut subscription, mut deliveries) = subscription(queue.clone());
    subscription.prefetch = None;
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let begun = Instant::now();
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let (publisher, message) = (publisher.clone(), message("", &queue.name, &n.to_string()));
        publishes.spawn(async move { publisher.publish(message, None).await });
    }
    while let Some(published) = soon(publishes.join_next()).await {
        published.unwrap().unwrap();
    }
    let mut seen = vec![false; 10_000];
    for _ in 0..10_000 {
        let delivery = soon(deliveries.recv()).await.unwrap();
        let n: usize = std::str::from_utf8(&delivery.body)
            .unwrap()
            .parse()
            .unwrap();
        assert!(!std::mem::replace(&mut seen[n], true), "{n} came twice");
        delivery.acker.ack();
    }
    println!("10,000 messages in {:?}", begun.elapsed());
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn options_are_checked() {
    let error = ConnectOptions::from_uri("http://localhost").unwrap_err();
    assert!(matches!(error, Error::BadUri { .. }));
}
