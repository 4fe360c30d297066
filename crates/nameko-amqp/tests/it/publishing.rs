//! Publishing: confirms, refusals, large bodies, load.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nameko_amqp::{
    ConnectOptions, Connection, Consumers, Error, Exchange, Properties, Publish, PublishError,
    PublishOptions, Publisher, Queue, Retry, Table, Value,
};
use nameko_broker::Broker;
use tokio::io::AsyncWriteExt;

use crate::{
    server::{METHOD, Server, frame},
    support::{
        auto_delete_queue, broker, connect_options, fast_retries, in_time, message, subscription,
    },
};

#[tokio::test]
async fn messages_arrive_unchanged_with_all_properties() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let exchange = Exchange {
        auto_delete: true,
        durable: false,
        ..Exchange::topic("exchange")
    };
    let queue = auto_delete_queue("queue").bind(exchange.clone(), "key.*");
    let (subscription, mut deliveries) = subscription(queue);
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    assert!(consumers.is_connected());

    // In the order of their names: RabbitMQ 4 sorts them.
    let headers = Table::from([
        ("big", i64::MIN.into()),
        ("bool", true.into()),
        ("double", 0.5.into()),
        ("int", 7.into()),
        ("list", vec!["a", "b"].into()),
        ("null", Value::Null),
        (
            "table",
            Table::from([("deep", Table::from([("er", 1)]))]).into(),
        ),
        ("text", "grüß dich".into()),
        ("time", Value::Timestamp(1_700_000_000)),
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
    in_time(publisher.publish(sent.clone(), None))
        .await
        .unwrap();

    let got = in_time(deliveries.recv()).await.unwrap();
    assert_eq!(got.body, sent.body);
    assert_eq!(got.properties, sent.properties);
    assert_eq!(
        (&*got.exchange, got.routing_key.as_str()),
        (exchange.name.as_str(), "key.word")
    );
    assert!(!got.redelivered);
    got.acker.ack();
    in_time(consumers.stop()).await;
    assert!(!consumers.is_connected());
}

#[tokio::test]
async fn bodies_up_to_the_default_limit_of_rabbitmq_4_arrive_unchanged() {
    let broker = broker().await;
    send_and_get(&connect_options(&broker), 16 << 20).await;
}

#[tokio::test]
async fn bodies_up_to_a_raised_limit_arrive_unchanged() {
    let broker = Broker::builder()
        .max_message_size(50 << 20)
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let options = ConnectOptions::from_uri(&broker.uri()).unwrap();
    send_and_get(&options, 50 << 20).await;
}

/// Publishes a message with a body of `size` bytes and reads it back.
async fn send_and_get(options: &ConnectOptions, size: usize) {
    let connection = in_time(Connection::open(options)).await.unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    in_time(channel.confirm_select()).await.unwrap();
    let queue = Queue {
        exclusive: true,
        durable: false,
        ..Queue::new("")
    };
    let queue = in_time(channel.queue_declare(&queue)).await.unwrap().name;
    let body: Bytes = (0..size).map(|n| n as u8).collect::<Vec<u8>>().into();
    let sent = Publish {
        body: body.clone(),
        ..message("", &queue, "")
    };
    in_time(in_time(channel.publish(&sent)).await.unwrap())
        .await
        .unwrap();
    let got = in_time(channel.get(&queue)).await.unwrap().unwrap();
    assert!(got.body == body, "the body has changed");
    got.acker.ack();
    assert!(in_time(channel.get(&queue)).await.unwrap().is_none());
    in_time(connection.close()).await;
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_missing_exchange_fails_only_its_own_publishes() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let queue = auto_delete_queue("queue");
    let missing = "missing".to_owned();
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, mut deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();

    for _ in 0..2 {
        let error = in_time(publisher.publish(message(&missing, "k", ""), None))
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::Refused(_)), "{error:?}");
        assert_eq!(error.reply_code(), Some(404));
        assert!(error.to_string().contains(&missing), "{error}");
    }
    in_time(publisher.publish(message("", &queue.name, "after"), None))
        .await
        .unwrap();
    assert_eq!(in_time(deliveries.recv()).await.unwrap().body, "after");

    // Once the exchange is declared, the same publisher succeeds.
    let exchange = Exchange {
        auto_delete: true,
        durable: false,
        ..Exchange::fanout(missing.clone())
    };
    let bound = Queue {
        no_declare: false,
        ..queue.clone().bind(exchange.clone(), "")
    };
    in_time(publisher.declare(&[exchange], &[bound]))
        .await
        .unwrap();
    in_time(publisher.publish(message(&missing, "k", "declared"), None))
        .await
        .unwrap();
    assert_eq!(in_time(deliveries.recv()).await.unwrap().body, "declared");
}

#[tokio::test]
async fn unroutable_mandatory_messages_are_errors() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let nowhere = "nowhere".to_owned();
    let queue = auto_delete_queue("queue");
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, _deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();

    let mandatory = |key: &str, id: &'static str| Publish {
        mandatory: true,
        properties: Properties {
            correlation_id: Some(id.into()),
            ..Properties::default()
        },
        ..message("", key, "x")
    };
    let (unroutable, routed, optional) = in_time(async {
        tokio::join!(
            publisher.publish(mandatory(&nowhere, "1"), None),
            publisher.publish(mandatory(&queue.name, "2"), None),
            publisher.publish(message("", &nowhere, "x"), None),
        )
    })
    .await;
    match unroutable {
        Err(PublishError::Unroutable {
            code: 312,
            routing_key,
            ..
        }) => assert_eq!(routing_key, nowhere),
        other => panic!("{other:?}"),
    }
    routed.unwrap();
    optional.unwrap();
}

#[tokio::test]
async fn a_refused_message_fails_alone() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let queue = auto_delete_queue("queue");
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, _deliveries) = subscription(queue.clone());
    subscription.prefetch = None;
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
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
    while let Some(published) = in_time(publishes.join_next()).await {
        match published.unwrap() {
            (true, result) => assert_eq!(result.unwrap_err().reply_code(), Some(406)),
            (false, result) => result.unwrap(),
        }
    }
}

#[tokio::test]
async fn unsendable_messages_are_refused_before_anything_is_sent() {
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
    for (message, reason) in [
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
        let error = in_time(publisher.publish(message, None)).await.unwrap_err();
        assert!(
            matches!(error, PublishError::Refused(Error::Unsendable { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains(reason), "{error}");
    }
    in_time(publisher.publish(message("", "k", "still works"), None))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_publishes_are_confirmed_and_delivered() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queue = auto_delete_queue("queue");
    let (mut subscription, mut deliveries) = subscription(queue.clone());
    subscription.prefetch = None;
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let (publisher, message) = (publisher.clone(), message("", &queue.name, &n.to_string()));
        publishes.spawn(async move { publisher.publish(message, None).await });
    }
    while let Some(published) = in_time(publishes.join_next()).await {
        published.unwrap().unwrap();
    }
    let mut seen = vec![false; 10_000];
    for _ in 0..10_000 {
        let delivery = in_time(deliveries.recv()).await.unwrap();
        let n: usize = std::str::from_utf8(&delivery.body)
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            !std::mem::replace(&mut seen[n], true),
            "{n} was delivered twice"
        );
        delivery.acker.ack();
    }
    in_time(consumers.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_brokers_limit_is_refused_at_once_and_alone() {
    // RabbitMQ's limit belongs to the node, so also in a run on RabbitMQ the broker is embedded.
    let broker = Broker::builder()
        .max_message_size(100_000)
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let options = ConnectOptions::from_uri(&broker.uri()).unwrap();
    let publisher = Publisher::shared(&options);
    let large = message("", "nowhere", &"x".repeat(100_001));
    let published = in_time(async {
        tokio::join!(
            publisher.publish(message("", "nowhere", "before"), fast_retries()),
            publisher.publish(large.clone(), fast_retries()),
            publisher.publish(message("", "nowhere", "after"), fast_retries()),
        )
    })
    .await;
    assert!(published.0.is_ok() && published.2.is_ok(), "{published:?}");
    let refused = published.1.unwrap_err();
    assert_eq!(refused.reply_code(), Some(406));
    for part in ["100001", "100000", "max_message_size` in rabbitmq.conf"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let error = in_time(publisher.publish(large, None)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        refused.to_string(),
        "also without retries"
    );
}

#[tokio::test]
async fn a_publish_ends_at_its_time_limit_with_the_reason() {
    let limited = PublishOptions {
        timeout: Some(Duration::from_millis(300)),
        ..PublishOptions::default()
    };
    let server = Server::new().await;
    let silent = Publisher::shared(&server.options());
    let sent = message("", "queue", "");
    let error = in_time(silent.publish_with(&sent, limited))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Lost(Error::Timeout { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("300ms"), "{error}");

    let server = Server::new().await;
    let publisher = Publisher::shared(&server.options());
    let script = async {
        let mut stream = server.handshake().await;
        // connection.blocked
        let blocked = b"\x00\x0a\x00\x3c\x0dlow on memory";
        stream.write_all(&frame(METHOD, 0, blocked)).await.unwrap();
        std::future::pending::<()>().await
    };
    let error = in_time(async {
        tokio::select! {
            published = publisher.publish_with(&sent, limited) => published.unwrap_err(),
            () = script => unreachable!(),
        }
    })
    .await;
    assert!(
        matches!(error, PublishError::Lost(Error::Blocked { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("low on memory"), "{error}");
}
