//! Several services in one process: how they start, and go down, together.

use std::sync::Arc;

use nameko::{Container, Runner, prelude::*};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::support::{broker, run, within};

/// Says when it is started and stopped; fails in the ways it is told.
struct Recorder {
    name: &'static str,
    fails_to_start: bool,
    journal: mpsc::UnboundedSender<String>,
}

impl Recorder {
    fn says(&self, what: &str) {
        // A test that is over does not listen.
        let _ = self.journal.send(format!("{} {what}", self.name));
    }
}

impl DependencyProvider for Recorder {
    type Dependency = ();

    async fn start(&self) -> Result<()> {
        if self.fails_to_start {
            return Err(Error::raise("OSError", "no space left"));
        }
        self.says("started");
        Ok(())
    }

    async fn stop(&self) {
        self.says("stopped");
    }

    fn kill(&self) {
        self.says("killed");
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
        Ok(())
    }

    async fn worker_setup(&self, ctx: &WorkerContext) -> Result<()> {
        if ctx.method_name() == "die" {
            return Err(Error::raise("OSError", "disk is gone"));
        }
        Ok(())
    }
}

/// Three services with a journal of their own for each test: `first` calls `second`.
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

/// What the services said up to now.
fn said(journal: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| journal.try_recv().ok()).collect()
}

#[tokio::test]
async fn services_stop_in_the_order_of_the_list_so_that_callers_get_their_answers() {
    fleet!();
    let mut journal = listen();
    let broker = broker().await;
    let runner = Arc::new(run(&services![First, Second, Third], &broker).await);
    said(&mut journal);

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let first = cluster.service("first");
    let call = tokio::spawn(async move { first.call::<String>("ask_second", ()).await });
    within("the call", ASKED.notified()).await;
    let stopping = tokio::spawn({
        let runner = runner.clone();
        async move { runner.stop().await }
    });
    // `second` still serves while `first` waits for it: it takes one more call.
    let second = cluster.service("second");
    let one_more = tokio::spawn(async move { second.call::<String>("answer", ()).await });
    within("one more call", ASKED.notified()).await;
    assert_eq!(said(&mut journal), [""; 0], "nothing has stopped yet");
    ANSWER.add_permits(2);
    for call in [call, one_more] {
        assert_eq!(
            within("the answer", call).await.unwrap().unwrap(),
            "an answer"
        );
    }
    within("the stop", stopping).await.unwrap();
    assert_eq!(
        said(&mut journal),
        ["first stopped", "second stopped", "third stopped"]
    );
    within("the end", runner.wait()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn one_that_dies_takes_its_peers_down_in_order_and_is_named() {
    fleet!();
    let mut journal = listen();
    let broker = broker().await;
    let runner = run(&services![First, Second, Third], &broker).await;
    said(&mut journal);

    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let third = cluster.service("third");
    // Its message goes back to the queue: no answer comes.
    let call = tokio::spawn(async move { third.call::<()>("die", ()).await });
    let error = within("the end", runner.wait()).await.unwrap_err();
    assert_eq!(error.to_string(), "third was killed: disk is gone");
    assert_eq!(
        said(&mut journal),
        ["third killed", "first stopped", "second stopped"]
    );
    let again = within("the end, again", runner.wait()).await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    call.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn one_that_cannot_start_is_named_and_the_others_are_stopped() {
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
    let said = said(&mut journal);
    for name in ["first", "third"] {
        let stopped = format!("{name} stopped");
        assert_eq!(
            said.iter().filter(|it| **it == stopped).count(),
            1,
            "{said:?}"
        );
    }
    for container in runner.containers() {
        within("each one's end", container.wait()).await.unwrap();
    }
    // Nothing is left that could be called.
    assert!(matches!(
        runner.start().await,
        Err(Error::ContainerStopping(_))
    ));
}

/// Dies while its peers wait for a broker that is not there.
#[tokio::test]
async fn one_that_dies_while_others_start_ends_the_start() {
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

    // Nobody listens on port 1.
    let config = Config::new().with("AMQP_URI", "amqp://127.0.0.1:1");
    let runner = Runner::new::<&str>(&services![Waiting, Mortal], &[], &config).unwrap();
    let error = within("the end", runner.start()).await.unwrap_err();
    assert_eq!(error.to_string(), "mortal was killed: disk is gone");
}
