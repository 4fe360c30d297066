//! Failing and hanging starts and stops.

use std::{
    future::pending,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use nameko::{
    Arguments,
    amqp::Table,
    prelude::*,
    testing::{Dummy, Recorder},
};

use crate::support::{no_broker, within};

static HEARD: OnceLock<Recorder<String>> = OnceLock::new();

fn received() -> &'static Recorder<String> {
    HEARD.get_or_init(Recorder::new)
}

/// A provider whose dependency reports its drop, with a configurable stop duration.
struct Slow {
    stop_takes: Duration,
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        received().record("worker is gone".to_owned());
    }
}

impl DependencyProvider for Slow {
    type Dependency = Arc<Guard>;

    async fn stop(&self) {
        received().record("provider stops".to_owned());
        tokio::time::sleep(self.stop_takes).await;
        received().record("provider has stopped".to_owned());
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Guard>> {
        Ok(Arc::new(Guard))
    }
}

/// Serializes the tests of this file, which share a static recorder.
static ONE_BY_ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[derive(Dependencies)]
struct Stubborn {
    #[dependency(Slow { stop_takes: Duration::ZERO })]
    _guard: Arc<Guard>,
}

#[service("stubborn")]
impl Stubborn {
    #[entrypoint(Dummy)]
    async fn hang(&self) -> Result<()> {
        received().record("worker runs".to_owned());
        pending().await
    }
}

#[tokio::test]
async fn a_worker_is_dropped_before_its_providers_stop() {
    let _turn = ONE_BY_ONE.lock().await;
    received().take();
    let config = no_broker().with("stop_timeout", 0.01);
    let container = Container::new::<Stubborn>(config).unwrap();
    container.start().await.unwrap();
    let method = container.method("hang").unwrap();
    container.spawn_worker(&method, Arguments::new(), Table::new(), |outcome| async {
        outcome
    });
    assert_eq!(received().take_when(1).await.unwrap(), ["worker runs"]);
    container.stop().await;
    assert_eq!(
        received().take(),
        ["worker is gone", "provider stops", "provider has stopped"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_provider_with_a_hanging_stop_does_not_block_the_container() {
    let _turn = ONE_BY_ONE.lock().await;
    received().take();
    let container = Container::builder::<Stubborn>(no_broker())
        .replace_provider(
            "_guard",
            Slow {
                stop_takes: Duration::from_secs(3600),
            },
        )
        .build()
        .unwrap();
    container.start().await.unwrap();
    let begun = tokio::time::Instant::now();
    container.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{begun:?}");
    assert_eq!(received().take(), ["provider stops"]);
    container.wait().await.unwrap();
}

/// A provider with a panicking `stop`.
struct Panics;

impl DependencyProvider for Panics {
    type Dependency = Arc<Guard>;

    async fn stop(&self) {
        panic!("no brakes")
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Guard>> {
        Ok(Arc::new(Guard))
    }
}

#[tokio::test]
async fn a_panicking_stop_is_logged_and_the_others_run() {
    let container = Container::builder::<Stubborn>(no_broker())
        .replace_provider("_guard", Panics)
        .build()
        .unwrap();
    container.start().await.unwrap();
    container.stop().await;
    let error = container.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "stubborn was killed: no brakes");
}

/// Blocks the thread of `Blocking::block` until the sender is dropped.
static BLOCKER: Mutex<Option<std::sync::mpsc::Receiver<()>>> = Mutex::new(None);

#[derive(Dependencies)]
struct Blocking;

#[service("blocking")]
impl Blocking {
    #[entrypoint(Dummy)]
    async fn block(&self) -> Result<()> {
        let blocker = BLOCKER.lock().unwrap().take().unwrap();
        received().record("worker blocks".to_owned());
        let _ = blocker.recv();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_blocks_its_thread_does_not_block_the_stop() {
    let _turn = ONE_BY_ONE.lock().await;
    received().take();
    let (hold, blocker) = std::sync::mpsc::channel();
    *BLOCKER.lock().unwrap() = Some(blocker);
    let config = no_broker().with("stop_timeout", 0);
    let container = Container::new::<Blocking>(config).unwrap();
    container.start().await.unwrap();
    let method = container.method("block").unwrap();
    let mut worker =
        container.spawn_worker(&method, Arguments::new(), Table::new(), |outcome| async {
            outcome
        });
    received().take_when(1).await.unwrap();
    within("the stop", container.stop()).await;
    assert!(!worker.is_finished());
    drop(hold);
    within("the worker's end", worker.wait()).await;
}

/// A provider with a panicking `setup`.
struct Explodes;

impl DependencyProvider for Explodes {
    type Dependency = Arc<Guard>;

    async fn setup(&self, _: &Container) -> Result<()> {
        panic!("boom")
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Guard>> {
        Ok(Arc::new(Guard))
    }
}

#[tokio::test]
async fn a_panicking_setup_fails_the_start_and_is_named() {
    let container = Container::builder::<Stubborn>(no_broker())
        .replace_provider("_guard", Explodes)
        .build()
        .unwrap();
    let error = container.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stubborn cannot start: dependency `_guard`: boom"
    );
    within("the end", container.wait()).await.unwrap();
}

#[tokio::test]
async fn an_ended_container_starts_no_worker() {
    #[derive(Dependencies)]
    struct Over;

    #[service("over")]
    impl Over {
        #[entrypoint(Dummy)]
        async fn work(&self) -> Result<()> {
            Ok(())
        }
    }

    let stopped = Container::new::<Over>(no_broker()).unwrap();
    stopped.start().await.unwrap();
    stopped.stop().await;
    let killed = Container::new::<Over>(no_broker()).unwrap();
    killed.start().await.unwrap();
    killed.kill(Error::raise("OSError", "disk is gone"));
    for container in [stopped, killed] {
        let method = container.method("work").unwrap();
        let run = container.run_worker(&method, Arguments::new(), Table::new(), |outcome| async {
            outcome
        });
        let error = within("the refusal", run).await.unwrap_err();
        assert!(matches!(error, Error::ContainerStopping(_)), "{error}");
    }
}

/// A provider with a task that fails during setup.
struct FailsMeanwhile;

impl DependencyProvider for FailsMeanwhile {
    type Dependency = Arc<Guard>;

    async fn setup(&self, container: &Container) -> Result<()> {
        container.spawn_managed("sweeper", async {
            Err::<(), _>(Error::raise("OSError", "disk is gone"))
        });
        pending().await
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Guard>> {
        Ok(Arc::new(Guard))
    }
}

#[tokio::test]
async fn a_start_ended_by_a_kill_returns_the_reason() {
    let container = Container::builder::<Stubborn>(no_broker())
        .replace_provider("_guard", FailsMeanwhile)
        .build()
        .unwrap();
    let error = within("the end", container.start()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stubborn was killed: task `sweeper` failed: disk is gone"
    );
}

#[tokio::test]
async fn a_second_start_and_a_start_during_stop_are_distinct_errors() {
    let _turn = ONE_BY_ONE.lock().await;
    let container = Container::new::<Stubborn>(no_broker()).unwrap();
    container.start().await.unwrap();
    let error = container.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stubborn was started already: a container starts once"
    );
    container.stop().await;
    let error = container.start().await.unwrap_err();
    assert!(matches!(error, Error::ContainerStopping(_)), "{error}");
}
