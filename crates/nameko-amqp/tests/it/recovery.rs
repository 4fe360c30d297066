//! Recovery: lost and frozen connections, restarted brokers, deleted queues.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nameko_amqp::{ConnectOptions, Connection, Consumers, Error, PublishError, Publisher};
use nameko_broker::Broker;
use tokio::sync::mpsc;

use crate::{
    proxy::Proxy,
    support::{
        Event, Recorder, broker, connect_options, expiring_queue, fast_retries, in_time, message,
        reconnected, subscription,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_when_connections_are_cut_under_load() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let options = proxy.options(&connect_options(&broker));
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let queue = expiring_queue("queue");
    let (subscription, mut deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);

    const MESSAGES: usize = 2000;
    let publishing = tokio::spawn(async move {
        let mut publishes = tokio::task::JoinSet::new();
        for n in 0..MESSAGES {
            let (publisher, message) =
                (publisher.clone(), message("", &queue.name, &n.to_string()));
            publishes.spawn(async move { publisher.publish(message, fast_retries()).await });
            if n % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while let Some(published) = publishes.join_next().await {
            published.unwrap().unwrap();
        }
    });
    let mut seen = vec![false; MESSAGES];
    let mut missing = MESSAGES;
    let mut received = 0;
    while missing > 0 {
        let delivery = in_time(deliveries.recv()).await.unwrap();
        received += 1;
        if received % 400 == 0 && received <= 1600 {
            proxy.cut().await;
        }
        let n: usize = std::str::from_utf8(&delivery.body)
            .unwrap()
            .parse()
            .unwrap();
        if !std::mem::replace(&mut seen[n], true) {
            missing -= 1;
        }
        // Has no effect for a delivery of a connection that was cut.
        delivery.acker.ack();
    }
    in_time(publishing).await.unwrap();
    assert!(matches!(
        in_time(events.recv()).await,
        Some(Event::Connected(false))
    ));
    assert!(matches!(
        in_time(events.recv()).await,
        Some(Event::Lost(Error::Lost { .. }))
    ));
    reconnected(&mut events).await;
    in_time(consumers.stop()).await;
}

#[tokio::test]
async fn a_late_acknowledgement_has_no_effect_on_the_new_connection() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(proxy.options(&connect_options(&broker)), recorder);
    let queue = expiring_queue("queue");
    let (mut subscription, mut deliveries) = subscription(queue.clone());
    let survived = Arc::new(AtomicBool::new(false));
    subscription.on_recovered = Some(Arc::new({
        let survived = Arc::clone(&survived);
        move |queue_survived| survived.store(queue_survived, Ordering::SeqCst)
    }));
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&connect_options(&broker));
    in_time(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let lost = in_time(deliveries.recv()).await.unwrap();
    proxy.cut().await;
    reconnected(&mut events).await;
    assert!(survived.load(Ordering::SeqCst));
    let again = in_time(deliveries.recv()).await.unwrap();
    assert!(again.redelivered && again.body == "1");
    assert_eq!(
        again.delivery_tag, lost.delivery_tag,
        "the old tag is the tag of the new delivery"
    );
    lost.acker.ack();
    lost.acker.reject(false);
    assert!(lost.acker.is_settled() && !again.acker.is_settled());
    // A second acknowledgement of the same tag would close the channel.
    again.acker.ack();
    in_time(publisher.publish(message("", &queue.name, "2"), None))
        .await
        .unwrap();
    let next = in_time(deliveries.recv()).await.unwrap();
    assert!(next.body == "2" && consumers.is_connected());
    next.acker.ack();
    in_time(consumers.stop()).await;
}

#[tokio::test]
async fn heartbeats_detect_a_frozen_connection() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let mut options = proxy.options(&connect_options(&broker));
    options.heartbeat = 1;
    options.connect_timeout = Duration::from_millis(500);
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let (subscription, mut deliveries) = subscription(expiring_queue("queue"));
    let queue = subscription.queue.name.clone();
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);
    in_time(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    in_time(deliveries.recv()).await.unwrap().acker.ack();

    proxy.freeze();
    let begun = Instant::now();
    let error = in_time(publisher.publish(message("", &queue, "2"), None))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Lost(Error::HeartbeatMissed { .. })),
        "{error:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    in_time(async {
        while !matches!(
            events.recv().await.unwrap(),
            Event::Lost(Error::HeartbeatMissed { .. })
        ) {}
    })
    .await;
    // A new connection times out.
    in_time(async {
        while !matches!(
            events.recv().await.unwrap(),
            Event::Failed(Error::Timeout { .. }, _)
        ) {}
    })
    .await;
    proxy.cut().await;
    reconnected(&mut events).await;
    in_time(publisher.publish(message("", &queue, "3"), fast_retries()))
        .await
        .unwrap();
    in_time(async { while deliveries.recv().await.unwrap().body != "3" {} }).await;
    in_time(consumers.stop()).await;
}

#[tokio::test]
async fn heartbeats_keep_idle_connections_open() {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.heartbeat = 1;
    let connection = in_time(Connection::open(&options)).await.unwrap();
    // There is no event to wait for: the connection has to stay open for four intervals.
    let ended = tokio::time::timeout(Duration::from_secs(4), connection.closed()).await;
    assert!(ended.is_err(), "{ended:?}");
    in_time(connection.channel()).await.unwrap();
    in_time(connection.close()).await;
}

#[tokio::test]
async fn reconnects_and_declares_again_after_the_broker_restarts() {
    // Always embedded: a RabbitMQ is not restarted.
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    let options = ConnectOptions::from_uri(&broker.uri()).unwrap();
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let (mut subscription, mut deliveries) = subscription(expiring_queue("queue"));
    let queue = subscription.queue.name.clone();
    let (sender, mut survived) = mpsc::unbounded_channel();
    subscription.on_recovered = Some(Arc::new(move |queue_survived| {
        // Fails if the test has ended.
        let _ = sender.send(queue_survived);
    }));
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);
    in_time(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    in_time(deliveries.recv()).await.unwrap().acker.ack();

    in_time(broker.stop()).await;
    let broker = in_time(Broker::start(addr)).await.unwrap();
    reconnected(&mut events).await;
    assert!(
        !in_time(survived.recv()).await.unwrap(),
        "the queue is new: the broker keeps messages in memory"
    );
    in_time(publisher.publish(message("", &queue, "2"), fast_retries()))
        .await
        .unwrap();
    assert_eq!(in_time(deliveries.recv()).await.unwrap().body, "2");
    in_time(consumers.stop()).await;
    in_time(publisher.close()).await;
    in_time(broker.stop()).await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, mut deliveries) = subscription(expiring_queue("queue"));
    let queue = subscription.queue.name.clone();
    let (sender, mut survived) = mpsc::unbounded_channel();
    subscription.on_recovered = Some(Arc::new(move |queue_survived| {
        // Fails if the test has ended.
        let _ = sender.send(queue_survived);
    }));
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    let connection = in_time(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    in_time(channel.queue_delete(&queue)).await.unwrap();
    assert!(!in_time(survived.recv()).await.unwrap());
    let publisher = Publisher::shared(&connect_options(&broker));
    in_time(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    assert_eq!(in_time(deliveries.recv()).await.unwrap().body, "1");
    in_time(consumers.stop()).await;
}

#[test]
fn publishers_reconnect_on_another_runtime_after_theirs_has_shut_down() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let broker_runtime = runtime();
    let broker = broker_runtime.block_on(broker());
    let stop = Arc::new(tokio::sync::Notify::new());
    let driving = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || broker_runtime.block_on(stop.notified())
    });
    let publisher = Publisher::shared(&connect_options(&broker));
    let connection = first.block_on(async {
        in_time(publisher.publish(message("", "k", ""), None))
            .await
            .unwrap();
        in_time(Connection::open(&connect_options(&broker)))
            .await
            .unwrap()
    });
    drop(first);
    assert!(!connection.is_open());
    second.block_on(async {
        let error = in_time(connection.channel()).await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error:?}");
        in_time(publisher.publish(message("", "k", ""), None))
            .await
            .unwrap();
    });
    stop.notify_one();
    driving.join().unwrap();
}

#[tokio::test]
async fn a_connection_that_returns_wakes_the_others() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    let options = ConnectOptions::from_uri(&broker.uri()).unwrap();
    broker.stop().await;
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    let mut delays = Vec::new();
    while delays
        .last()
        .is_none_or(|delay| *delay < Duration::from_millis(1500))
    {
        match in_time(events.recv()).await.unwrap() {
            Event::Failed(Error::Io { .. }, delay) => delays.push(delay),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        delays.iter().all(|delay| *delay <= Duration::from_secs(2)),
        "{delays:?}"
    );

    let failed = Instant::now();
    let broker = Broker::start(addr).await.unwrap();
    let connection = in_time(Connection::open(&options)).await.unwrap();
    in_time(starting).await.unwrap().unwrap();
    let waited = failed.elapsed();
    assert!(waited < delays[delays.len() - 1], "not woken: {waited:?}");
    connection.close().await;
    consumers.stop().await;
    broker.stop().await;
}
