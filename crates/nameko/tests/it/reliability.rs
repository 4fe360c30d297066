//! Failures of brokers, networks and methods: every call returns a result or an error.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use nameko::{
    Cluster, Container, Error, Runner, StandaloneDispatcher,
    amqp::{self, Connection, Consumers, Observer, Queue, Subscription},
    prelude::*,
    services,
};
use nameko_broker::Broker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    proxy::Proxy,
    services::{ServiceX, ServiceY, Troubles, hanging},
    support,
};

/// Returns a configuration for the broker at `addr`.
fn config(addr: std::net::SocketAddr) -> Config {
    Config::default().with("AMQP_URI", format!("amqp://guest:guest@{addr}/"))
}

#[tokio::test]
async fn a_service_waits_for_the_broker() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    broker.stop().await;

    let container = Container::new::<ServiceY>(config(addr)).unwrap();
    let starting = tokio::spawn({
        let container = container.clone();
        async move { container.start().await }
    });
    let error = Cluster::connect(&config(addr)).await.unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");

    let broker = Broker::start(addr).await.unwrap();
    support::within("the start", starting)
        .await
        .unwrap()
        .unwrap();
    let cluster = Cluster::connect(&config(addr)).await.unwrap();
    let value: String = cluster
        .service("service_y")
        .call("append_id", ("a",))
        .await
        .unwrap();
    assert_eq!(value, "a-y");
    container.stop().await;
    broker.stop().await;
}

#[tokio::test]
async fn stop_ends_a_start_without_a_broker() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    broker.stop().await;
    let container = Container::new::<ServiceX>(config(addr)).unwrap();
    let starting = tokio::spawn({
        let container = container.clone();
        async move { container.start().await }
    });
    support::within("the stop", container.stop()).await;
    assert!(
        support::within("the start", starting)
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn calls_survive_a_lost_connection() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut proxy = Proxy::start(broker.addr()).await;
    let through = config(proxy.addr());
    let runner =
        Runner::new::<&str>(&services![ServiceX, ServiceY, Troubles], &[], &through).unwrap();
    runner.start().await.unwrap();
    let cluster = Cluster::connect(&through).await.unwrap();

    // Each call takes a while, so that every disconnect meets calls at all stages.
    let load = (0..60).map(|number: u64| {
        let troubles = cluster
            .service("troubles")
            .with_timeout(Duration::from_secs(30));
        tokio::spawn(async move { troubles.call::<u64>("nap", (number % 7,)).await })
    });
    let load: Vec<_> = load.collect();
    for _ in 0..3 {
        let value: String = cluster
            .service("service_x")
            .call("remote_method", ("a",))
            .await
            .unwrap();
        assert_eq!(value, "a-x-y");
        proxy.cut().await;
    }
    for call in load {
        support::within("a call", call).await.unwrap().unwrap();
    }
    runner.stop().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_restarted_without_state_fails_pending_calls_and_serves_new_ones() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    let runner = Runner::new::<&str>(&services![Troubles], &[], &config(addr)).unwrap();
    runner.start().await.unwrap();
    let cluster = Cluster::connect(&config(addr)).await.unwrap();
    let troubles = cluster.service("troubles");
    let call = tokio::spawn({
        let troubles = troubles.clone();
        async move { troubles.call::<()>("hang", ("forgot",)).await }
    });
    support::within("the worker", hanging("forgot").notified()).await;

    broker.stop().await;
    let broker = Broker::start(addr).await.unwrap();
    let error = support::within("the call", call)
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::ReplyLost { .. }), "{error:?}");
    assert!(
        error.to_string().contains("reply queue no longer existed"),
        "{error}"
    );

    // The service is unknown until its queue is redeclared.
    let echo = async {
        loop {
            match troubles.call::<u8>("echo", (1,)).await {
                Err(error) if error.is_unknown_service() => tokio::task::yield_now().await,
                result => return result,
            }
        }
    };
    assert_eq!(support::within("a call", echo).await.unwrap(), 1);
    runner.kill();
    broker.stop().await;
}

#[tokio::test]
async fn calls_of_a_killed_service_are_redelivered_to_the_next_instance() {
    let broker = support::broker().await;
    let first = Container::new::<Troubles>(broker.config()).unwrap();
    first.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles");
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let troubles = troubles.clone();
            tokio::spawn(async move { troubles.call::<u64>("nap", (30,)).await })
        })
        .collect();
    assert_eq!(troubles.call::<u64>("nap", (0,)).await.unwrap(), 0);
    first.kill(Error::raise("Test", "pulled the plug"));
    let error = support::within("the end", first.wait()).await.unwrap_err();
    assert_eq!(error.to_string(), "troubles was killed: pulled the plug");

    let second = Container::new::<Troubles>(broker.config()).unwrap();
    second.start().await.unwrap();
    for call in calls {
        assert_eq!(support::within("a call", call).await.unwrap().unwrap(), 30);
    }
    second.stop().await;
}

#[tokio::test]
async fn a_dying_service_stops_its_peers_in_order() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceX, ServiceY], &broker).await;
    runner.containers()[1].kill(Error::raise("Test", "pulled the plug"));
    let error = support::within("the end", runner.wait()).await.unwrap_err();
    assert_eq!(error.to_string(), "service_y was killed: pulled the plug");
    support::within("the peer's end", runner.containers()[0].wait())
        .await
        .unwrap();
}

#[derive(Debug)]
struct Explosive;

impl<'de> serde::Deserialize<'de> for Explosive {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        panic!("a bug in reading")
    }
}

impl serde::Serialize for Explosive {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        panic!("a bug in writing")
    }
}

#[derive(Dependencies)]
struct Minefield;

#[service("minefield")]
impl Minefield {
    #[rpc]
    async fn take(&self, _it: Explosive) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn give(&self) -> Result<Explosive> {
        Ok(Explosive)
    }
}

#[tokio::test]
async fn a_panic_in_serialization_is_an_error_for_the_caller() {
    let broker = support::broker().await;
    let runner = support::run(&services![Minefield], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let minefield = cluster
        .service("minefield")
        .with_timeout(Duration::from_secs(10));
    let error = minefield.call::<()>("take", (1,)).await.unwrap_err();
    assert_eq!(error.to_string(), "Panic a bug in reading");
    let error = minefield.call::<()>("give", ()).await.unwrap_err();
    assert_eq!(error.to_string(), "Panic a bug in writing");
    runner.stop().await;
}

/// The error is about the unsent request, not about the missing reply.
#[tokio::test]
async fn a_timeout_while_the_broker_is_unreachable_names_the_broker() {
    let broker = support::broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let place = proxy.addr().to_string();
    let uri = broker.uri().replace(&broker.addr().to_string(), &place);
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config().with("AMQP_URI", uri))
        .await
        .unwrap();
    let troubles = cluster.service("troubles");
    assert_eq!(troubles.call::<u8>("echo", (1,)).await.unwrap(), 1);

    // Shorter than the publisher's retries take.
    let hurried = troubles.with_timeout(Duration::from_millis(1500));
    proxy.refuse().await;
    let error = hurried.call::<u8>("echo", (1,)).await.unwrap_err();
    assert!(matches!(error, Error::Publish(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot connect to {place}")),
        "{error}"
    );

    // The broker accepts connections but does not respond.
    proxy.resume().await;
    let back = async { while troubles.call::<u8>("echo", (1,)).await.is_err() {} };
    support::within("the way back", back).await;
    proxy.freeze();
    let error = hurried.call::<u8>("echo", (1,)).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with(&format!("no answer from {place}")),
        "{error}"
    );
    drop(cluster);
    runner.stop().await;
}

#[tokio::test]
async fn calls_after_stop_fail_immediately() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles").with_timeout(None);
    assert_eq!(troubles.call::<u8>("echo", (1,)).await.unwrap(), 1);
    cluster.stop().await;
    let error = support::within("the call", troubles.call::<u8>("echo", (1,)))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the client was stopped"),
        "{error}"
    );

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles").with_timeout(None);
    drop(cluster);
    let error = support::within("the call", troubles.call::<u8>("echo", (1,)))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the client was dropped"),
        "{error}"
    );
    runner.stop().await;
}

/// Reports each failed connection attempt to a test.
struct Failures(mpsc::UnboundedSender<amqp::Error>);

impl Observer for Failures {
    fn connection_error(&self, error: &amqp::Error, _: Duration) {
        self.0.send(error.clone()).unwrap();
    }
}

/// The messages of a deleted queue are lost, even if a first recovery attempt redeclares it.
#[tokio::test]
async fn a_lost_queue_is_reported_if_recovery_takes_several_attempts() {
    let broker = support::broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    let (failed, mut failures) = mpsc::unbounded_channel();
    let consumers = Consumers::new(proxy.options(&broker.options()), Arc::new(Failures(failed)));
    let (replies, other) = (support::unique("replies"), support::unique("other"));
    let (recovered, mut recoveries) = mpsc::unbounded_channel();
    for name in [&replies, &other] {
        let (recovered, name) = (recovered.clone(), name.clone());
        consumers.add(Subscription {
            queue: Queue::new(name.as_str()),
            prefetch: None,
            sink: Arc::new(|_| ()),
            on_recovered: Some(Arc::new(move |survived| {
                recovered.send((name.clone(), survived)).unwrap();
            })),
        });
    }
    consumers.start().await.unwrap();
    proxy.refuse().await;
    let direct = Connection::open(&broker.options()).await.unwrap();
    let channel = direct.channel().await.unwrap();
    channel.queue_delete(&replies).await.unwrap();
    channel.queue_delete(&other).await.unwrap();
    let inequivalent = Queue {
        durable: false,
        auto_delete: true,
        ..Queue::new(other.as_str())
    };
    channel.queue_declare(&inequivalent).await.unwrap();
    proxy.resume().await;

    let refused = async {
        loop {
            let error = failures.recv().await.unwrap();
            if error.is_precondition_failed() {
                return error;
            }
        }
    };
    let error = support::within("the refusal", refused).await;
    assert!(error.to_string().contains(&other), "{error}");
    // As soon as it is redeclared: later messages are not lost.
    let recovery = support::within("the report", recoveries.recv());
    assert_eq!(recovery.await, Some((replies.clone(), false)));
    channel.queue_delete(&other).await.unwrap();
    let rest = async {
        let first = recoveries.recv().await.unwrap();
        let second = recoveries.recv().await.unwrap();
        [first, second]
    };
    let mut rest = support::within("the recovery", rest).await;
    rest.sort();
    let mut expected = [(other, false), (replies, true)];
    expected.sort();
    assert_eq!(rest, expected);
    consumers.stop().await;
}

/// Proxies connections to a broker, but answers those with the numbers `busy` like a gateway
/// without a backend.
async fn gateway(listener: TcpListener, broker: std::net::SocketAddr, busy: &'static [usize]) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    while let Ok((mut client, _)) = listener.accept().await {
        if busy.contains(&number) {
            client.read_exact(&mut [0; 8]).await.unwrap();
            let answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
            client.write_all(answer).await.unwrap();
            client.shutdown().await.unwrap();
        } else {
            connections.spawn(async move {
                let mut broker = TcpStream::connect(broker).await.unwrap();
                // Until either side closes.
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            });
        }
        number += 1;
    }
}

#[tokio::test]
async fn a_reply_survives_refused_connections() {
    let broker = support::broker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    // The first connection consumes requests, the next one publishes replies.
    tasks.spawn(gateway(listener, broker.addr(), &[1, 2]));
    let uri = broker.uri().replace(&broker.addr().to_string(), &place);
    let container = Container::new::<Troubles>(broker.config().with("AMQP_URI", uri)).unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles").with_timeout(None);
    let echo = support::within("the reply", troubles.call::<u8>("echo", (1,)));
    assert_eq!(echo.await.unwrap(), 1);
    container.stop().await;
}

#[tokio::test]
async fn arguments_and_results_just_below_the_default_limit_of_rabbitmq_4_are_delivered() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let text = "x".repeat((16 << 20) - 1000);
    let troubles = cluster.service("troubles");
    let echo: String = troubles.call("echo", (&text,)).await.unwrap();
    assert!(echo == text);
    runner.stop().await;
}

/// Holds `Sleeper::block` until the sender is dropped.
static HOLD: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
static BLOCKED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

#[derive(Dependencies)]
struct Sleeper;

#[service("sleeper")]
impl Sleeper {
    #[rpc]
    async fn block(&self) -> Result<u32> {
        let hold = HOLD.lock().unwrap().take();
        if let Some(hold) = hold {
            let _ = hold.recv();
        }
        Ok(BLOCKED.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1)
    }

    #[rpc]
    async fn echo(&self, value: u32) -> Result<u32> {
        Ok(value)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_blocks_its_thread_stops_neither_heartbeats_nor_other_calls() {
    let broker = support::broker().await;
    let config = broker.config().with("HEARTBEAT", 1);
    let runner = Runner::new::<&str>(&services![Sleeper], &[], &config).unwrap();
    runner.start().await.unwrap();
    let (hold, held) = std::sync::mpsc::channel();
    *HOLD.lock().unwrap() = Some(held);
    let cluster = Cluster::connect(&config).await.unwrap();
    let sleeper = cluster.service("sleeper");
    let blocking = tokio::spawn({
        let sleeper = sleeper.clone();
        async move { sleeper.call::<u32>("block", ()).await }
    });
    // Longer than a broker waits for a heartbeat.
    let start = std::time::Instant::now();
    for number in 0.. {
        let call = sleeper.call::<u32>("echo", (number,));
        assert_eq!(support::within("a call", call).await.unwrap(), number);
        if start.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    drop(hold);
    let count = support::within("the reply", blocking).await.unwrap();
    assert_eq!(count.unwrap(), 1, "the method ran once");
    cluster.stop().await;
    runner.stop().await;
}

/// Sends texts of a given length in every way.
#[derive(Dependencies)]
struct Texts {
    #[dependency(RpcProxy::new("texts"))]
    texts: ServiceProxy,
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
    #[dependency(Publisher::to_queues())]
    queues: MessagePublisher,
}

#[service("texts")]
impl Texts {
    #[rpc]
    async fn text(&self, length: usize) -> Result<String> {
        Ok("x".repeat(length))
    }

    #[rpc]
    async fn length(&self, text: String) -> Result<usize> {
        Ok(text.len())
    }

    #[rpc]
    async fn call(&self, length: usize) -> Result<usize> {
        self.texts.call("length", ("x".repeat(length),)).await
    }

    #[rpc]
    async fn dispatch(&self, length: usize) -> Result<()> {
        self.events.dispatch("written", &"x".repeat(length)).await
    }

    #[rpc]
    async fn publish(&self, length: usize) -> Result<()> {
        let text = "x".repeat(length);
        self.queues.publish(&text).routing_key("texts").await
    }
}

#[tokio::test]
async fn messages_above_the_brokers_limit_are_errors_at_once() {
    // RabbitMQ's limit belongs to the node, so also in a run on RabbitMQ the broker is embedded.
    let broker = Broker::builder()
        .max_message_size(100_000)
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let config = config(broker.addr());
    let runner = Runner::new::<&str>(&services![Texts], &[], &config).unwrap();
    runner.start().await.unwrap();
    let cluster = Cluster::connect(&config).await.unwrap();
    let texts = cluster.service("texts");
    let argument = "x".repeat(100_001);
    let request = support::within("the request", texts.call::<usize>("length", (&argument,))).await;
    let events = StandaloneDispatcher::new(&config).unwrap();
    let event = events.dispatch("texts", "written", &argument);
    let event = support::within("the event", event.into_future()).await;
    let mut errors = vec![request.unwrap_err(), event.unwrap_err()];
    for method in ["text", "call", "dispatch", "publish"] {
        let call = texts.call::<serde_json::Value>(method, (100_001,));
        errors.push(support::within(method, call).await.unwrap_err());
    }
    for error in errors {
        let text = error.to_string();
        for part in [
            "message size 1000",
            "larger than configured max size 100000;",
            "`max_message_size` in rabbitmq.conf",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
    let short: String = texts.call("text", (1,)).await.unwrap();
    assert_eq!(short, "x");

    let queues = || {
        let stats = broker.stats();
        let names = stats.queues.keys().map(|(_, name)| name);
        names.filter(|name| name.contains("reply")).count()
    };
    assert_eq!(queues(), 2, "the client's and the service's");
    cluster.stop().await;
    assert_eq!(queues(), 1, "a closed client deletes its reply queue");
    runner.stop().await;
    broker.stop().await;
}
