//! Layers around workers: order, answers of their own, context data, errors, panics, timeouts.

use std::time::Duration;

use nameko::{
    Cluster, Container, Next, Outcome, StatefulProvider, WorkerCall, WorkerEnd, WorkerLayer,
    prelude::*,
    testing::{Dummy, Recorder, entrypoint_hook},
};
use serde_json::json;

use crate::support::{self, broker, no_broker, within};

/// The steps of all workers of one test.
type Journal = Recorder<String>;

/// A layer that records both sides of the call.
struct Around(Journal, &'static str);

impl WorkerLayer for Around {
    async fn call(&self, _: WorkerCall<'_>, next: Next<'_>) -> Outcome {
        self.0.record(format!("{} in", self.1));
        let outcome = next.run().await;
        let out = match &outcome {
            Ok(_) => "out".to_owned(),
            Err(fault) => format!("out with {}: {fault}", fault.exc_type),
        };
        self.0.record(format!("{} {out}", self.1));
        outcome
    }
}

/// A layer that does as its call's argument says.
struct Unruly(Journal);

impl WorkerLayer for Unruly {
    async fn call(&self, call: WorkerCall<'_>, next: Next<'_>) -> Outcome {
        let arguments = call.arguments();
        match arguments["how"].as_str() {
            Some("answer") => Ok(Box::new("an answer of the layer")),
            Some("refuse") => Err(Error::raise("Unauthorized", "no token").into()),
            Some("context") => {
                call.ctx().set("tenant", "acme");
                next.run().await
            }
            Some("map") => next.run().await.map_err(|mut fault| {
                fault.value = format!("mapped: {fault}");
                fault
            }),
            Some("recover") => next.run().await.or_else(|_| Ok(Box::new("recovered"))),
            Some("panic early") => panic!("early"),
            Some("panic late") => {
                drop(next.run().await);
                panic!("late")
            }
            Some("time out") => {
                let limit = Duration::from_millis(10);
                let ran = tokio::time::timeout(limit, next.run()).await;
                ran.unwrap_or_else(|_| Err(Error::raise("Slow", "too slow").into()))
            }
            Some("show") => {
                let shown = json!(arguments);
                let (entrypoint, method) = (call.entrypoint(), call.method().name());
                self.0.record(format!("{entrypoint} {method} {shown}"));
                next.run().await
            }
            _ => next.run().await,
        }
    }
}

/// A provider that records its hooks.
struct Recording(Journal);

impl StatefulProvider for Recording {
    type Dependency = Journal;
    type State = ();

    async fn get_dependency(&self, _: &WorkerContext) -> Result<(Journal, ())> {
        self.0.record("get_dependency".to_owned());
        Ok((self.0.clone(), ()))
    }

    async fn before_reply(&self, _: &WorkerContext, (): &mut (), _: &mut Outcome) -> Result<()> {
        self.0.record("before_reply".to_owned());
        Ok(())
    }

    async fn worker_teardown(&self, _: &WorkerContext, (): (), end: WorkerEnd<'_>) -> Result<()> {
        self.0.record(format!("{end:?}"));
        Ok(())
    }
}

static JOURNAL: std::sync::LazyLock<Journal> = std::sync::LazyLock::new(Journal::default);

fn journal() -> Journal {
    JOURNAL.clone()
}

#[derive(Dependencies)]
struct Layered {
    #[dependency(Recording(journal()))]
    journal: Journal,
}

#[service("layered", layers = [Around(journal(), "service 1"), Around(journal(), "service 2")])]
impl Layered {
    #[rpc]
    async fn work(&self) -> Result<u8> {
        self.journal.record("method".to_owned());
        Ok(7)
    }
}

#[derive(Dependencies)]
struct Plain {
    #[dependency(Recording(Journal::default()))]
    journal: Journal,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("plain")]
impl Plain {
    #[entrypoint(Dummy)]
    async fn work(&self, how: String) -> Result<String> {
        self.journal.record("method".to_owned());
        match how.as_str() {
            "map" | "recover" => Err(Error::raise("Failure", "no luck")),
            "time out" => std::future::pending().await,
            _ => {
                let tenant = self.worker.get("tenant");
                let tenant = tenant.and_then(|tenant| tenant.as_str().map(str::to_owned));
                Ok(format!("for {}", tenant.unwrap_or_default()))
            }
        }
    }

    #[rpc(sensitive_arguments("password"))]
    async fn log_in(&self, how: String, password: String) -> Result<usize> {
        Ok(how.len() + password.len())
    }
}

/// Starts `Plain` with an outer layer and the unruly one.
async fn plain() -> (Container, Journal) {
    let journal = Journal::default();
    let container = Container::builder::<Plain>(no_broker())
        .replace_provider("journal", Recording(journal.clone()))
        .layer(Around(journal.clone(), "outer"))
        .layer(Unruly(journal.clone()))
        .only(["work"])
        .build()
        .unwrap();
    container.start().await.unwrap();
    (container, journal)
}

#[tokio::test]
async fn layers_of_the_runner_are_around_those_of_the_service() {
    let broker = broker().await;
    let services = services![Layered].layer(Around(journal(), "runner"));
    let runner = support::run(&services, &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let layered = cluster.service("layered");
    assert_eq!(layered.call::<u8>("work", ()).await.unwrap(), 7);
    cluster.stop().await;
    runner.stop().await;
    assert_eq!(
        journal().take(),
        [
            "runner in",
            "service 1 in",
            "service 2 in",
            "get_dependency",
            "method",
            "before_reply",
            "service 2 out",
            "service 1 out",
            "runner out",
            "Completed(Ok)",
        ]
    );
}

#[tokio::test]
async fn a_layer_may_answer_change_the_context_and_map_errors() {
    let (container, journal) = plain().await;
    let work = entrypoint_hook(&container, "work");
    let ran = ["get_dependency", "method", "before_reply"];
    for (how, answer, steps) in [
        ("answer", "an answer of the layer", &[][..]),
        ("context", "for acme", &ran),
        ("none", "for ", &ran),
        ("recover", "recovered", &ran),
    ] {
        assert_eq!(work.call::<String>((how,)).await.unwrap(), answer);
        let mut expected = vec!["outer in"];
        expected.extend(steps);
        expected.push("outer out");
        match how {
            "answer" => {}
            // The end has the outcome that was sent.
            _ => expected.push("Completed(Ok)"),
        }
        assert_eq!(journal.take(), expected, "{how}");
    }
    for (how, error) in [("refuse", "no token"), ("map", "mapped: no luck")] {
        let failed = work.call::<String>((how,)).await.unwrap_err();
        assert_eq!(failed.to_string(), error);
    }
    container.stop().await;
}

#[tokio::test]
async fn a_panic_of_a_layer_is_the_outcome_for_the_layers_around_it() {
    let (container, journal) = plain().await;
    let work = entrypoint_hook(&container, "work");
    for how in ["early", "late"] {
        let panics = format!("panic {how}");
        let error = work.call::<String>((panics,)).await.unwrap_err();
        assert_eq!(error.to_string(), how);
        let steps = journal.take();
        assert!(
            steps.contains(&format!("outer out with Panic: {how}")),
            "{steps:?}"
        );
    }
    assert_eq!(work.call::<String>(("none",)).await.unwrap(), "for ");
    container.stop().await;
    container.wait().await.unwrap();
}

#[tokio::test]
async fn a_layer_that_drops_the_method_cancels_the_worker() {
    let (container, journal) = plain().await;
    let work = entrypoint_hook(&container, "work");
    let error = within("the call", work.call::<String>(("time out",))).await;
    assert_eq!(error.unwrap_err().to_string(), "too slow");
    assert_eq!(
        journal.take(),
        [
            "outer in",
            "get_dependency",
            "method",
            "outer out with Slow: too slow",
            "Cancelled"
        ]
    );
    container.stop().await;
}

#[tokio::test]
async fn a_layer_sees_redacted_arguments_and_the_entrypoint() {
    let broker = broker().await;
    let journal = Journal::default();
    let container = Container::builder::<Plain>(broker.config())
        .layer(Unruly(journal.clone()))
        .build()
        .unwrap();
    container.start().await.unwrap();
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let plain = cluster.service("plain");
    let length: usize = plain.call("log_in", ("show", "secret")).await.unwrap();
    assert_eq!(length, 10);
    assert_eq!(
        journal.take(),
        [r#"rpc log_in {"how":"show","password":"********"}"#]
    );
    cluster.stop().await;
    container.stop().await;
}

/// Layers of HTTP methods.
#[cfg(feature = "http")]
mod http {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use nameko::{Fault, web};

    use super::*;
    use crate::http_client::Client;

    /// Lets one call pass.
    #[derive(Default)]
    struct Once(AtomicUsize);

    impl WorkerLayer for Once {
        async fn call(&self, _: WorkerCall<'_>, next: Next<'_>) -> Outcome {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => next.run().await,
                _ => {
                    let status = web::http::StatusCode::TOO_MANY_REQUESTS;
                    Err(Fault::of(&web::Error::new(status, "once only")))
                }
            }
        }
    }

    #[derive(Dependencies)]
    struct Page;

    #[service("page")]
    impl Page {
        #[http(GET, "/")]
        async fn page(&self) -> Result<String> {
            Ok("a page".to_owned())
        }
    }

    #[tokio::test]
    async fn an_http_error_of_a_layer_is_the_response() {
        let once = Arc::new(Once::default());
        let config = no_broker().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
        let container = Container::builder::<Page>(config)
            .layer(once.clone())
            .build()
            .unwrap();
        container.start().await.unwrap();
        let mut client = Client::connect(web::address(&container).unwrap()).await;
        assert_eq!(client.get("/").await.short(), (200, "a page"));
        assert_eq!(client.get("/").await.status, 429);
        // The test shares the layer.
        assert_eq!(once.0.load(Ordering::SeqCst), 2);
        container.stop().await;
    }
}
