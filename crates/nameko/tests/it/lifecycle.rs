//! Containers: start, stop, kill; workers and their limits; provider hooks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt;
use nameko::{Cluster, Container, Error, Outcome, prelude::*};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::{
    proxy::Proxy,
    services::{ServiceY, Troubles, hanging},
    support,
};

/// A provider that reports its hooks to a test, in order.
struct Recorder {
    received: mpsc::UnboundedSender<String>,
    fail_in: Option<&'static str>,
    is_fatal: bool,
}

impl Recorder {
    fn report(&self, what: impl Into<String>) -> Result<()> {
        let what = what.into();
        let fails = self.fail_in.is_some_and(|prefix| what.starts_with(prefix));
        self.received.send(what).unwrap();
        if fails {
            let broken = Error::raise("Broken", "the provider is broken");
            Err(if self.is_fatal {
                Error::fatal(broken)
            } else {
                broken
            })
        } else {
            Ok(())
        }
    }
}

impl DependencyProvider for Recorder {
    type Dependency = mpsc::UnboundedSender<String>;

    async fn setup(&self, _: &Container) -> Result<()> {
        self.report("setup")
    }

    async fn start(&self) -> Result<()> {
        self.report("start")
    }

    async fn stop(&self) {
        self.report("stop").unwrap();
    }

    fn kill(&self) {
        self.report("kill").unwrap();
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Self::Dependency> {
        self.report(format!("get_dependency for {}", ctx.method_name()))?;
        Ok(self.received.clone())
    }

    async fn worker_setup(&self, _: &WorkerContext) -> Result<()> {
        self.report("worker_setup")
    }

    async fn before_reply(&self, _: &WorkerContext, _: &mut Outcome) -> Result<()> {
        self.report("before_reply")
    }

    async fn worker_result(&self, _: &WorkerContext, outcome: &Outcome) -> Result<()> {
        self.report(match outcome {
            Ok(value) => format!("worker_result {}", String::from_utf8(value.to_json()?)?),
            Err(fault) => format!("worker_result error {fault}"),
        })
    }

    async fn worker_teardown(&self, _: &WorkerContext) -> Result<()> {
        self.report("worker_teardown")
    }
}

/// A service type declares its provider, so each test has a type with a static recorder.
macro_rules! recorded {
    ($service:ident, $name:literal, $fail_in:expr) => {
        static PLACE: std::sync::Mutex<Option<mpsc::UnboundedSender<String>>> =
            std::sync::Mutex::new(None);

        fn recorder() -> Recorder {
            Recorder {
                received: PLACE.lock().unwrap().clone().unwrap(),
                fail_in: $fail_in,
                is_fatal: $name == "broken",
            }
        }

        #[derive(Dependencies)]
        struct $service {
            #[dependency(recorder())]
            received: mpsc::UnboundedSender<String>,
        }

        #[service($name)]
        impl $service {
            #[rpc]
            async fn work(&self, fail: bool) -> Result<u8> {
                self.received.send("method".to_owned()).unwrap();
                if fail {
                    Err(Error::raise("Failure", "no luck"))
                } else {
                    Ok(7)
                }
            }
        }

        fn listen() -> mpsc::UnboundedReceiver<String> {
            let (sender, receiver) = mpsc::unbounded_channel();
            *PLACE.lock().unwrap() = Some(sender);
            receiver
        }
    };
}

async fn received(receiver: &mut mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut received = Vec::new();
    for _ in 0..count {
        received.push(support::within("a hook", receiver.recv()).await.unwrap());
    }
    received
}

#[tokio::test]
async fn provider_hooks_are_called_in_order() {
    recorded!(Recorded, "recorded", None);
    let mut hooks = listen();
    let broker = support::broker().await;
    let container = Container::new::<Recorded>(broker.config()).unwrap();
    container.start().await.unwrap();
    assert_eq!(received(&mut hooks, 2).await, ["setup", "start"]);

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let recorded = cluster.service("recorded");
    recorded.call::<u8>("work", (false,)).await.unwrap();
    let order = received(&mut hooks, 6).await;
    assert_eq!(
        order,
        [
            "get_dependency for work",
            "worker_setup",
            "method",
            "before_reply",
            "worker_result 7",
            "worker_teardown"
        ]
    );

    recorded.call::<u8>("work", (true,)).await.unwrap_err();
    assert_eq!(
        received(&mut hooks, 6).await[4],
        "worker_result error no luck"
    );

    // Mismatched arguments start no worker.
    recorded.call::<u8>("work", ()).await.unwrap_err();
    container.stop().await;
    assert_eq!(received(&mut hooks, 1).await, ["stop"]);
    container.wait().await.unwrap();
}

#[tokio::test]
async fn a_failed_provider_setup_fails_the_start() {
    recorded!(Unready, "unready", Some("setup"));
    let _hooks = listen();
    let broker = support::broker().await;
    let container = Container::new::<Unready>(broker.config()).unwrap();
    let error = container.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unready cannot start: dependency `received`: the provider is broken"
    );
    support::within("the end", container.wait()).await.unwrap();
}

#[tokio::test]
async fn a_failed_injection_is_the_error_of_the_call() {
    recorded!(Uninjected, "uninjected", Some("get_dependency"));
    let _hooks = listen();
    let broker = support::broker().await;
    let container = Container::new::<Uninjected>(broker.config()).unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let error = cluster
        .service("uninjected")
        .call::<u8>("work", (false,))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Broken the provider is broken");
    container.stop().await;
    container.wait().await.unwrap();
}

#[tokio::test]
async fn a_fatal_error_of_a_provider_kills_the_container() {
    recorded!(Broken, "broken", Some("worker_result"));
    let mut hooks = listen();
    let broker = support::broker().await;
    let container = Container::new::<Broken>(broker.config()).unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    // The reply was sent before the hook.
    assert_eq!(
        cluster
            .service("broken")
            .call::<u8>("work", (false,))
            .await
            .unwrap(),
        7
    );
    let error = support::within("the end", container.wait())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Killed { .. }));
    assert_eq!(
        error.to_string(),
        "broken was killed: the provider is broken"
    );
    assert_eq!(
        received(&mut hooks, 9).await[6..],
        ["worker_result 7", "kill", "worker_teardown"]
    );
}

/// The current and the highest number of `Limited` workers.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static BEGUN: Notify = Notify::const_new();
static GATE: Semaphore = Semaphore::const_new(0);

#[derive(Dependencies)]
struct Limited;

#[service("limited")]
impl Limited {
    #[rpc]
    async fn work(&self) -> Result<()> {
        let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(running, Ordering::SeqCst);
        if running == 3 {
            BEGUN.notify_one();
        }
        GATE.acquire().await.unwrap().forget();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn at_most_max_workers_run_and_stop_waits_for_them() {
    let broker = support::broker().await;
    let config = broker
        .config()
        .with("max_workers", 3)
        .with("prefetch_count", 20);
    let container = Container::new::<Limited>(config).unwrap();
    container.start().await.unwrap();
    let cluster = Arc::new(Cluster::connect(&broker.config()).await.unwrap());
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let limited = cluster.service("limited");
            tokio::spawn(async move { limited.call::<()>("work", ()).await })
        })
        .collect();
    support::within("three workers", BEGUN.notified()).await;

    let stopping = tokio::spawn({
        let container = container.clone();
        async move { container.stop().await }
    });
    GATE.add_permits(10);
    support::within("the stop", stopping).await.unwrap();
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    assert_eq!(RUNNING.load(Ordering::SeqCst), 0);

    // Requests without a worker are served by the next instance: nothing is lost.
    let next = Container::new::<Limited>(broker.config()).unwrap();
    next.start().await.unwrap();
    for call in calls {
        support::within("a call", call).await.unwrap().unwrap();
    }
    next.stop().await;
}

#[tokio::test]
async fn stop_is_bounded_and_drops_a_hanging_worker() {
    let broker = support::broker().await;
    let config = broker.config().with("stop_timeout", 0.05);
    let container = Container::new::<Troubles>(config).unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles");
    let call = tokio::spawn(async move { troubles.call::<()>("hang", ("stop",)).await });
    support::within("the worker", hanging("stop").notified()).await;
    support::within("the stop", container.stop()).await;
    support::within("the end", container.wait()).await.unwrap();
    // The request is back in its queue, for another instance.
    let channel = nameko::amqp::Connection::open(&broker.options())
        .await
        .unwrap()
        .channel()
        .await
        .unwrap();
    let requests = channel
        .queue_declare(&nameko::amqp::Queue::new("rpc-troubles"))
        .await
        .unwrap();
    assert_eq!(requests.messages, 1);
    cluster.stop().await;
    let error = support::within("the call", call)
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::ReplyLost { .. }), "{error:?}");
}

#[tokio::test]
async fn a_stop_completes_after_its_caller_gives_up() {
    let broker = support::broker().await;
    let config = broker.config().with("stop_timeout", 1);
    let container = Container::new::<Troubles>(config).unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles");
    let call = tokio::spawn(async move { troubles.call::<()>("hang", ("gives-up",)).await });
    support::within("the worker", hanging("gives-up").notified()).await;
    // Polled once, then dropped.
    assert!(container.stop().now_or_never().is_none());
    support::within("the second stop", container.stop()).await;
    support::within("the end", container.wait()).await.unwrap();
    call.abort();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_hanging_broker() {
    let broker = support::broker().await;
    let proxy = Proxy::start(broker.addr()).await;
    let uri = broker
        .uri()
        .replace(&broker.addr().to_string(), &proxy.addr().to_string());
    assert!(uri.contains(&proxy.addr().to_string()), "{uri}");
    let config = broker
        .config()
        .with("AMQP_URI", uri)
        .with("HEARTBEAT", 0)
        .with("stop_timeout", 0.05);
    let container = Container::new::<ServiceY>(config).unwrap();
    container.start().await.unwrap();
    proxy.freeze();
    support::within("the stop", container.stop()).await;
}

/// Blocks its `setup` until the container has stopped.
struct Slow;

impl DependencyProvider for Slow {
    type Dependency = ();

    async fn setup(&self, container: &Container) -> Result<()> {
        let stopping = tokio::spawn({
            let container = container.clone();
            async move { container.stop().await }
        });
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(stopping))?;
        Ok(())
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
        Ok(())
    }
}

#[derive(Dependencies)]
struct Sluggish {
    #[dependency(Slow)]
    _slow: (),
}

#[service("sluggish")]
impl Sluggish {
    #[rpc]
    async fn work(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stopped_during_its_start_consumes_nothing() {
    let broker = support::broker().await;
    let container = Container::new::<Sluggish>(broker.config()).unwrap();
    let error = support::within("the start", container.start())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::ContainerStopping(_)), "{error:?}");
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let error = cluster
        .service("sluggish")
        .with_timeout(std::time::Duration::from_secs(5))
        .call::<()>("work", ())
        .await
        .unwrap_err();
    assert!(error.is_unknown_service(), "{error:?}");
}

#[tokio::test]
async fn stop_is_idempotent_and_allowed_before_start() {
    let broker = support::broker().await;
    let container = Container::new::<ServiceY>(broker.config()).unwrap();
    container.stop().await;
    container.stop().await;
    assert!(matches!(
        container.start().await,
        Err(Error::ContainerStopping(_))
    ));
    container.wait().await.unwrap();
}

#[tokio::test]
async fn an_invalid_configuration_is_an_error() {
    for (key, value) in [
        ("max_workers", -1),
        ("stop_timeout", -1),
        ("prefetch_count", -7),
    ] {
        let error = Container::new::<ServiceY>(Config::default().with(key, value)).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[tokio::test]
async fn duplicate_service_names_are_an_error() {
    let services = nameko::services![ServiceY, Troubles, ServiceY];
    let error = nameko::Runner::new::<&str>(&services, &[], &Config::default()).unwrap_err();
    assert!(error.to_string().contains("`service_y`"), "{error}");
    let error = nameko::Runner::new(&nameko::services![ServiceY], &["nope"], &Config::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no service is called `nope`; there are: service_y"
    );
}
