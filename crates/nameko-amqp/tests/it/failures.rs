//! The AMQP client when things break: no call hangs, consumers come back, errors say what to do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nameko_amqp::{
    ConnectOptions, Connection, Consumers, Error, Observer, PublishError, Publisher, Queue, Retry,
    Table,
};
use nameko_broker::Broker;
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    proxy::Proxy,
    support::{broker, connect_options, message, soon, subscription, temporary},
};

/// What an observer was told.
#[derive(Debug)]
enum Event {
    Failed(Error, Duration),
    Connected(bool),
    Lost(Error),
}

/// Passes on what it is told.
struct Recorder(mpsc::UnboundedSender<Event>);

impl Recorder {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), events)
    }

    fn tell(&self, event: Event) {
        // The test may be over.
        let _ = self.0.send(event);
    }
}

impl Observer for Recorder {
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        self.tell(Event::Failed(error.clone(), retry_in));
    }

    fn connected(&self, reconnect: bool) {
        self.tell(Event::Connected(reconnect));
    }

    fn lost(&self, error: &Error) {
        self.tell(Event::Lost(error.clone()));
    }
}

/// Waits for the connection to be made again.
async fn reconnected(events: &mut mpsc::UnboundedReceiver<Event>) {
    soon(async { while !matches!(events.recv().await.unwrap(), Event::Connected(true)) {} }).await;
}

/// A queue that outlives a lost connection, but not the test by long.
fn surviving(name: &str) -> Queue {
    Queue {
        durable: true,
        arguments: Table::from([("x-expires", 60_000)]),
        ..Queue::new(name)
    }
}

fn eager() -> Option<Retry> {
    Some(Retry {
        max_retries: Some(200),
        interval_start: Duration::from_millis(20),
        interval_step: Duration::ZERO,
        interval_max: Duration::from_millis(20),
    })
}

#[tokio::test]
async fn nobody_listening_is_said_with_address_and_without_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let options = ConnectOptions::from_uri(&format!("amqp://me:secret@{addr}/place")).unwrap();
    let error = soon(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.is_recoverable(),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&addr.to_string()) && text.contains("`place`") && text.contains("`me`"),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("secret") && !format!("{error:?} {options:?}").contains("secret"));

    let publisher = Publisher::shared(&options);
    let error = soon(publisher.publish(message("", "k", ""), None))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Lost(Error::Io { .. })),
        "{error:?}"
    );
    let begun = Instant::now();
    let twice = Retry {
        max_retries: Some(2),
        interval_start: Duration::from_millis(50),
        interval_step: Duration::from_millis(50),
        interval_max: Duration::from_secs(1),
    };
    soon(publisher.publish(message("", "k", ""), Some(twice)))
        .await
        .unwrap_err();
    assert!(
        begun.elapsed() >= Duration::from_millis(150),
        "it waited 50 and 100 ms"
    );
}

#[tokio::test]
async fn a_broker_further_down_the_list_is_found() {
    let broker = broker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let uri = format!("amqp://{closed};{}", broker.uri());
    let connection = soon(Connection::open(&ConnectOptions::from_uri(&uri).unwrap()))
        .await
        .unwrap();
    soon(connection.close()).await;
}

#[tokio::test]
async fn wrong_password_and_wrong_vhost_are_told_apart() {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.uris[0].password = "wrong".into();
    let error = soon(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::AccessRefused { .. }) && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("`guest`"), "{error}");
    let publisher = Publisher::shared(&options);
    let error = soon(publisher.publish(message("", "k", ""), eager()))
        .await
        .unwrap_err();
    assert_eq!(
        error.reply_code(),
        Some(403),
        "at once, without a retry: {error}"
    );

    let mut options = connect_options(&broker);
    options.uris[0].vhost = "no such place".into();
    let error = soon(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::NotAllowed { .. }) && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("no such place"), "{error}");

    // Consumers go on trying: the operator may put it right.
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options, recorder);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    for _ in 0..2 {
        match soon(events.recv()).await.unwrap() {
            Event::Failed(Error::NotAllowed { .. }, wait) => assert!(wait > Duration::ZERO),
            other => panic!("{other:?}"),
        }
    }
    soon(consumers.stop()).await;
    assert!(matches!(soon(starting).await.unwrap(), Err(Error::Stopped)));
}

#[tokio::test]
async fn consumers_wait_for_a_broker_that_is_not_there_yet() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    proxy.refuse().await;
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(proxy.options(&connect_options(&broker)), recorder);
    let (subscription, _deliveries) = subscription(temporary("queue"));
    consumers.add(subscription);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    assert!(matches!(
        soon(events.recv()).await,
        Some(Event::Failed(Error::Io { .. }, _))
    ));
    proxy.resume().await;
    soon(starting).await.unwrap().unwrap();
    assert!(consumers.is_connected());
}

#[tokio::test]
async fn stopping_ends_a_start_that_hangs_in_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("amqp://{}", listener.local_addr().unwrap());
    let consumers = Consumers::new(ConnectOptions::from_uri(&uri).unwrap(), Arc::new(()));
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    let _silent = soon(listener.accept()).await.unwrap();
    let begun = Instant::now();
    soon(consumers.stop()).await;
    assert!(matches!(soon(starting).await.unwrap(), Err(Error::Stopped)));
    assert!(begun.elapsed() < Duration::from_secs(3));
    // Started again it says so too.
    assert!(matches!(soon(consumers.start()).await, Err(Error::Stopped)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_under_load_nothing_confirmed_is_lost() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let options = proxy.options(&connect_options(&broker));
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let queue = surviving("queue");
    let (subscription, mut deliveries) = subscription(queue.clone());
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);

    const MESSAGES: usize = 2000;
    let publishing = tokio::spawn(async move {
        let mut publishes = tokio::task::JoinSet::new();
        for n in 0..MESSAGES {
            let (publisher, message) =
                (publisher.clone(), message("", &queue.name, &n.to_string()));
            publishes.spawn(async move { publisher.publish(message, eager()).await });
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
    let mut came = 0;
    while missing > 0 {
        let delivery = soon(deliveries.recv()).await.unwrap();
        came += 1;
        if came % 400 == 0 && came <= 1600 {
            proxy.cut().await;
        }
        let n: usize = std::str::from_utf8(&delivery.body)
            .unwrap()
            .parse()
            .unwrap();
        if !std::mem::replace(&mut seen[n], true) {
            missing -= 1;
        }
        // Late for a delivery of a connection that was cut: skipped.
        delivery.acker.ack();
    }
    soon(publishing).await.unwrap();
    assert!(matches!(
        soon(events.recv()).await,
        Some(Event::Connected(false))
    ));
    assert!(matches!(
        soon(events.recv()).await,
        Some(Event::Lost(Error::Lost { .. }))
    ));
    reconnected(&mut events).await;
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn a_late_acknowledgement_settles_nothing_on_the_new_connection() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(proxy.options(&connect_options(&broker)), recorder);
    let queue = surviving("queue");
    let (mut subscription, mut deliveries) = subscription(queue.clone());
    let survived = Arc::new(AtomicBool::new(false));
    subscription.on_recovered = Some(Arc::new({
        let survived = Arc::clone(&survived);
        move |there| survived.store(there, Ordering::SeqCst)
    }));
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&connect_options(&broker));
    soon(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let lost = soon(deliveries.recv()).await.unwrap();
    proxy.cut().await;
    reconnected(&mut events).await;
    assert!(survived.load(Ordering::SeqCst));
    let again = soon(deliveries.recv()).await.unwrap();
    assert!(again.redelivered && again.body == "1");
    assert_eq!(
        again.delivery_tag, lost.delivery_tag,
        "the old tag names the new delivery"
    );
    lost.acker.ack();
    lost.acker.reject(false);
    assert!(lost.acker.is_settled() && !again.acker.is_settled());
    // Had the broker seen it, this would be a wrong acknowledgement that closes the channel.
    again.acker.ack();
    soon(publisher.publish(message("", &queue.name, "2"), None))
        .await
        .unwrap();
    let next = soon(deliveries.recv()).await.unwrap();
    assert!(next.body == "2" && consumers.is_connected());
    next.acker.ack();
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn a_frozen_connection_is_noticed_by_its_heartbeat() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let mut options = proxy.options(&connect_options(&broker));
    options.heartbeat = 1;
    options.connect_timeout = Duration::from_millis(500);
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let (subscription, mut deliveries) = subscription(surviving("queue"));
    let queue = subscription.queue.name.clone();
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);
    soon(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    soon(deliveries.recv()).await.unwrap().acker.ack();

    proxy.freeze();
    let begun = Instant::now();
    let error = soon(publisher.publish(message("", &queue, "2"), None))
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
    soon(async {
        while !matches!(
            events.recv().await.unwrap(),
            Event::Lost(Error::HeartbeatMissed { .. })
        ) {}
    })
    .await;
    // Also a new connection gets nowhere, and says so.
    soon(async {
        while !matches!(
            events.recv().await.unwrap(),
            Event::Failed(Error::Timeout { .. }, _)
        ) {}
    })
    .await;
    proxy.cut().await;
    reconnected(&mut events).await;
    soon(publisher.publish(message("", &queue, "3"), eager()))
        .await
        .unwrap();
    soon(async { while deliveries.recv().await.unwrap().body != "3" {} }).await;
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn idle_connections_live_on_heartbeats() {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.heartbeat = 1;
    let connection = soon(Connection::open(&options)).await.unwrap();
    // Nothing is waited for here: for four intervals nothing may happen.
    let ended = tokio::time::timeout(Duration::from_secs(4), connection.closed()).await;
    assert!(ended.is_err(), "{ended:?}");
    soon(connection.channel()).await.unwrap();
    soon(connection.close()).await;
}

#[tokio::test]
async fn a_restarted_broker_gets_everything_declared_again() {
    // Restarting needs a broker of one's own.
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    let options = ConnectOptions::from_uri(&broker.uri()).unwrap();
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options.clone(), recorder);
    let (mut subscription, mut deliveries) = subscription(surviving("queue"));
    let queue = subscription.queue.name.clone();
    let (told, mut survived) = mpsc::unbounded_channel();
    subscription.on_recovered = Some(Arc::new(move |there| {
        // The test may be over.
        let _ = told.send(there);
    }));
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&options);
    soon(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    soon(deliveries.recv()).await.unwrap().acker.ack();

    soon(broker.stop()).await;
    let broker = soon(Broker::start(addr)).await.unwrap();
    reconnected(&mut events).await;
    assert!(
        !soon(survived.recv()).await.unwrap(),
        "its messages live in memory: the queue is a new one"
    );
    soon(publisher.publish(message("", &queue, "2"), eager()))
        .await
        .unwrap();
    assert_eq!(soon(deliveries.recv()).await.unwrap().body, "2");
    soon(consumers.stop()).await;
    soon(publisher.close()).await;
    soon(broker.stop()).await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, mut deliveries) = subscription(surviving("queue"));
    let queue = subscription.queue.name.clone();
    let (told, mut recovered) = mpsc::unbounded_channel();
    subscription.on_recovered = Some(Arc::new(move |there| {
        // The test may be over.
        let _ = told.send(there);
    }));
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    soon(channel.queue_delete(&queue)).await.unwrap();
    assert!(!soon(recovered.recv()).await.unwrap());
    let publisher = Publisher::shared(&connect_options(&broker));
    soon(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    assert_eq!(soon(deliveries.recv()).await.unwrap().body, "1");
    soon(consumers.stop()).await;
}

#[tokio::test]
async fn killed_consumers_give_back_what_they_held() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (first, mut deliveries) = subscription(surviving("queue"));
    let queue = first.queue.clone();
    consumers.add(first);
    soon(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&connect_options(&broker));
    soon(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let held = soon(deliveries.recv()).await.unwrap();
    consumers.kill();
    held.acker.ack();
    assert!(
        soon(deliveries.recv()).await.is_none(),
        "its sink is dropped"
    );
    soon(consumers.stop()).await;

    let others = Consumers::new(connect_options(&broker), Arc::new(()));
    let (second, mut deliveries) = subscription(queue);
    others.add(second);
    soon(others.start()).await.unwrap();
    let again = soon(deliveries.recv()).await.unwrap();
    assert!(again.redelivered && again.body == "1");
    again.acker.ack();
    soon(others.stop()).await;
}

#[tokio::test]
async fn acknowledgements_made_before_a_stop_reach_the_broker() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, mut deliveries) = subscription(surviving("queue"));
    let queue = subscription.queue.name.clone();
    consumers.add(subscription);
    soon(consumers.start()).await.unwrap();
    soon(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    soon(deliveries.recv()).await.unwrap().acker.ack();
    soon(consumers.stop()).await;
    let connection = soon(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = soon(connection.channel()).await.unwrap();
    assert_eq!(soon(channel.queue_delete(&queue)).await.unwrap(), 0);
}

#[test]
fn a_connection_whose_runtime_ended_says_so_and_publishers_go_on_elsewhere() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let home = runtime();
    let broker = home.block_on(broker());
    // The broker runs on `home`, which must be driven.
    let stop = Arc::new(tokio::sync::Notify::new());
    let driving = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || home.block_on(stop.notified())
    });
    let publisher = Publisher::shared(&connect_options(&broker));
    let connection = first.block_on(async {
        soon(publisher.publish(message("", "k", ""), None))
            .await
            .unwrap();
        soon(Connection::open(&connect_options(&broker)))
            .await
            .unwrap()
    });
    drop(first);
    assert!(!connection.is_open());
    second.block_on(async {
        let error = soon(connection.channel()).await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error:?}");
        soon(publisher.publish(message("", "k", ""), None))
            .await
            .unwrap();
    });
    stop.notify_one();
    driving.join().unwrap();
}
