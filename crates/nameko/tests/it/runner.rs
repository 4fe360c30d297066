//! Several services in one process: start and shutdown.

use std::sync::Arc;

use nameko::{Container, Runner, prelude::*};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::support::{broker, run, within};

/// A provider that reports its lifecycle and fails on request.
struct Recorder {
    name: &'static str,
    fails_to_start: bool,
    journal: mpsc::UnboundedSender<String>,
}

impl Recorder {
    fn report(&self, what: &str) {
        // Fails after the end of the test.
        let _ = self.journal.send(format!("{} {what}", self.name));
    }
}

impl DependencyProvider for Recorder {
    type Dependency = ();

    async fn start(&self) -> Result<()> {
        if self.fails_to_start {
            return Err(Error::raise("OSError", "no space left"));
        }
        self.report("started");
        Ok(())
    }

    async fn stop(&self) {
        self.report("stopped");
    }

    fn kill(&self) {
        self.report("killed");
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
        Ok(())
    }

    async fn worker_setup(&self, ctx: &WorkerContext) -> Result<()> {
        if ctx.method_name() == "die" {
            return Err(Error::fatal("disk is gone"));
        }
        Ok(())
    }
}

/// Three services with a journal per test; `first` calls `second`.
macro_rules! fleet {
    ($($broken:ident)?) => {
        static JOURNAL: std::sync::OnceLock<mpsc::UnboundedSender<String>> = std::sync::OnceLock::new();

        fn recorder(name: &'static str) -> Recorder {
            let fails_to_start = [$(stringify!($broken),)? ""].contains(&name);
            Recorder { name, fails_to_start, journal: JOURNAL.get().unwrap().clone() }
        }

        #[derive(Dependencies)]
        struct First {
            #[dependency(recorder("first"))]
            _recorder: (),
            #[dependency(RpcProxy::new("second"))]
            second: ServiceProxy,
        }

        #[service("first")]
        impl First {
            #[rpc]
            async fn ask_second(&self) -> Result<String> {
                self.second.call("answer", ()).await
            }
        }

        #[derive(Dependencies)]
        struct Second {
            #[dependency(recorder("second"))]
            _recorder: (),
        }

        #[service("second")]
        impl Second {
            #[rpc]
            async fn answer(&self) -> Result<String> {
                ASKED.notify_one();
                ANSWER.acquire().await.unwrap().forget();
                Ok("an answer".to_owned())
            }
        }

        #[derive(Dependencies)]
        struct Third {
            #[dependency(recorder("third"))]
            _recorder: (),
        }

        #[service("third")]
        impl Third {
            #[rpc]
            async fn die(&self) -> Result<()> {
                Ok(())
            }
        }

        fn listen() -> mpsc::UnboundedReceiver<String> {
            let (sender, receiver) = mpsc::unbounded_channel();
            JOURNAL.set(sender).unwrap();
            receiver
        }

        static ASKED: Notify = Notify::const_new();
        static ANSWER: Semaphore = Semaphore::const_new(0);
    };
}

/// Returns the journal so far.
fn journal_so_far(journal: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| journal.try_recv().ok()).collect()
}

#[tokio::test]
async fn services_stop_in_list_order_so_that_callers_get_their_replies() {
    fleet!();
    let mut journal = listen();
    let broker = broker().await;
    let runner = Arc::new(run(&services![First, Second, Third], &broker).await);
    journal_so_far(&mut journal);

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let first = cluster.service("first");
    let call = tokio::spawn(async move { first.call::<String>("ask_second", ()).await });
    within("the call", ASKED.notified()).await;
    let stopping = tokio::spawn({
        let runner = runner.clone();
        async move { runner.stop().await }
    });
    // `second` still serves while `first` waits for it.
    let second = cluster.service("second");
    let one_more = tokio::spawn(async move { second.call::<String>("answer", ()).await });
    within("one more call", ASKED.notified()).await;
    assert_eq!(
        journal_so_far(&mut journal),
        [""; 0],
        "nothing has stopped yet"
    );
    ANSWER.add_permits(2);
    for call in [call, one_more] {
        assert_eq!(
            within("the answer", call).await.unwrap().unwrap(),
            "an answer"
        );
    }
    within("the stop", stopping).await.unwrap();
    assert_eq!(
        journal_so_far(&mut journal),
        ["first stopped", "second stopped", "third stopped"]
    );
    within("the end", runner.wait()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_dying_service_stops_its_peers_in_order_and_is_named() {
    fleet!();
    let mut journal = listen();
    let broker = broker().await;
    let runner = run(&services![First, Second, Third], &broker).await;
    journal_so_far(&mut journal);

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let third = cluster.service("third");
    // Its message is requeued, so there is no reply.
    let call = tokio::spawn(async move { third.call::<()>("die", ()).await });
    let error = within("the end", runner.wait()).await.unwrap_err();
    assert_eq!(error.to_string(), "third was killed: disk is gone");
    assert_eq!(
        journal_so_far(&mut journal),
        ["third killed", "first stopped", "second stopped"]
    );
    let again = within("the end, again", runner.wait()).await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    call.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn a_service_that_fails_to_start_is_named_and_the_others_are_stopped() {
    fleet!(second);
    let mut journal = listen();
    let broker = broker().await;
    let runner =
        Runner::new::<&str>(&services![First, Second, Third], &[], &broker.config()).unwrap();
    let error = within("the end", runner.start()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "second cannot start: dependency `_recorder`: no space left"
    );
    let entries = journal_so_far(&mut journal);
    for name in ["first", "third"] {
        let stopped = format!("{name} stopped");
        assert_eq!(
            entries.iter().filter(|entry| **entry == stopped).count(),
            1,
            "{entries:?}"
        );
    }
    for container in runner.containers() {
        within("each one's end", container.wait()).await.unwrap();
    }
    // No service is left.
    assert!(matches!(
        runner.start().await,
        Err(Error::ContainerStopping(_))
    ));
}

/// A service that dies while its peers wait for a missing broker.
#[tokio::test]
async fn a_service_dying_during_the_start_ends_the_start() {
    static DIE: Notify = Notify::const_new();

    struct Dies;
    impl DependencyProvider for Dies {
        type Dependency = ();

        async fn setup(&self, container: &Container) -> Result<()> {
            let dying = container.clone();
            tokio::spawn(async move {
                DIE.notified().await;
                dying.kill(Error::raise("OSError", "disk is gone"));
            });
            Ok(())
        }

        async fn start(&self) -> Result<()> {
            DIE.notify_one();
            Ok(())
        }

        async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Dependencies)]
    struct Mortal {
        #[dependency(Dies)]
        _dies: (),
    }

    #[service("mortal")]
    impl Mortal {}

    #[derive(Dependencies)]
    struct Waiting;

    #[service("waiting")]
    impl Waiting {
        #[rpc]
        async fn hello(&self) -> Result<()> {
            Ok(())
        }
    }

    // Nothing listens on port 1.
    let config = Config::new().with("AMQP_URI", "amqp://127.0.0.1:1");
    let runner = Runner::new::<&str>(&services![Waiting, Mortal], &[], &config).unwrap();
    let error = within("the end", runner.start()).await.unwrap_err();
    assert_eq!(error.to_string(), "mortal was killed: disk is gone");
}
