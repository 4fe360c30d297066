//! The causes of errors in logs, and `anyhow`.

use std::{
    io::Write,
    sync::{Arc, LazyLock, Mutex},
};

use nameko::{
    Container,
    prelude::*,
    testing::{Dummy, entrypoint_hook},
};
use tracing::{Dispatch, level_filters::LevelFilter, subscriber::DefaultGuard};

/// What the test has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// A second subscriber. With only one, `tracing` asks the thread that first logs an event whether
/// to log it, and caches the answer for all threads.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| {
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::OFF);
    Dispatch::new(subscriber.finish())
});

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot place the order")]
struct NotPlaced(#[source] NotSaved);

#[derive(Debug, thiserror::Error)]
#[error("cannot save")]
struct NotSaved(#[source] std::io::Error);

#[derive(Debug, thiserror::Error, Exception)]
#[error("no order {id}")]
#[exception("shop.exceptions.NotFound")]
struct NotFound {
    id: u64,
}

fn not_placed() -> NotPlaced {
    NotPlaced(NotSaved(std::io::Error::other("the disk is full")))
}

/// A provider that has no dependency to give.
struct Broken;

impl DependencyProvider for Broken {
    type Dependency = u8;

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<u8> {
        match ctx.method_name() {
            "injected" => Err(Error::from_error(not_placed())),
            _ => Ok(1),
        }
    }
}

#[derive(Dependencies)]
struct Shop {
    #[dependency(Broken)]
    broken: u8,
}

#[service("shop")]
impl Shop {
    #[entrypoint(Dummy)]
    async fn place(&self) -> Result<(), NotPlaced> {
        Err(not_placed())
    }

    #[entrypoint(Dummy)]
    async fn converted(&self) -> Result<()> {
        Err(Error::from_error(not_placed()))
    }

    #[entrypoint(Dummy)]
    async fn panicking(&self) -> Result<()> {
        let error: Box<dyn std::error::Error + Send + Sync> = not_placed().into();
        std::panic::panic_any(error)
    }

    #[entrypoint(Dummy)]
    async fn injected(&self) -> Result<u8> {
        Ok(self.broken)
    }
}

const CAUSES: &str =
    "cannot place the order\n  caused by: cannot save\n  caused by: the disk is full";

#[tokio::test]
async fn the_log_of_a_failed_worker_has_a_line_per_cause() {
    let (log, _guard) = Log::capture();
    let shop = Container::new::<Shop>(Config::new()).unwrap();
    shop.start().await.unwrap();
    for (number, method) in ["place", "converted", "panicking", "injected"]
        .into_iter()
        .enumerate()
    {
        let hook = entrypoint_hook(&shop, method);
        let error = hook.call::<Option<u8>>(()).await.unwrap_err();
        // Causes are for the log, not for callers.
        assert_eq!(error.to_string(), "cannot place the order");
        let text = log.text();
        assert!(text.matches(CAUSES).count() > number, "{method}: {text}");
    }
    shop.stop().await;
}

#[tokio::test]
async fn the_log_of_a_kill_has_a_line_per_cause() {
    let (log, _guard) = Log::capture();
    let shop = Container::new::<Shop>(Config::new()).unwrap();
    shop.start().await.unwrap();
    shop.kill(Error::from_error(not_placed()));
    assert!(log.text().contains(CAUSES), "{}", log.text());
}

#[cfg(feature = "anyhow")]
mod anyhow_results {
    use anyhow::Context;
    use nameko::{Cluster, exceptions, services};

    use super::*;
    use crate::support;

    #[derive(Dependencies)]
    struct Stock;

    #[service("stock")]
    impl Stock {
        #[rpc]
        async fn take(&self) -> anyhow::Result<u8> {
            Err(not_placed()).context("cannot take the item")
        }

        #[rpc]
        async fn find(&self) -> anyhow::Result<()> {
            Err(NotFound { id: 3 }).context("cannot find the item")
        }

        #[rpc]
        async fn parse(&self, number: String) -> anyhow::Result<u32> {
            Ok(number.parse()?)
        }

        /// `?` on both kinds of errors.
        #[rpc]
        async fn convert(&self, number: String) -> Result<u32> {
            let parsed = number.parse::<u32>().context("not a number");
            let own: Result<()> = Err(Error::raise("Late", "too late"));
            let wrapped = match parsed {
                Ok(_) => own.context("converting"),
                Err(error) => Err(error),
            };
            wrapped?;
            Ok(0)
        }
    }

    #[derive(Dependencies)]
    struct Logged;

    #[service("logged")]
    impl Logged {
        #[entrypoint(Dummy)]
        async fn take(&self) -> anyhow::Result<u8> {
            Err(not_placed()).context("cannot take the item")
        }
    }

    #[tokio::test]
    async fn the_log_of_an_anyhow_error_has_a_line_per_cause() {
        let (log, _guard) = Log::capture();
        let logged = Container::new::<Logged>(Config::new()).unwrap();
        logged.start().await.unwrap();
        let take = entrypoint_hook(&logged, "take");
        let error = take.call::<u8>(()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot take the item");
        let causes = format!("cannot take the item\n  caused by: {CAUSES}");
        assert!(log.text().contains(&causes), "{}", log.text());
        logged.stop().await;
    }

    #[tokio::test]
    async fn a_method_may_return_an_anyhow_result() {
        exceptions::register::<NotFound>();
        let broker = support::broker().await;
        let runner = support::run(&services![Stock], &broker).await;
        let cluster = Cluster::connect(&broker.config()).await.unwrap();
        let stock = cluster.service("stock");

        let seven: u32 = stock.call("parse", ("7",)).await.unwrap();
        assert_eq!(seven, 7);

        let error = stock.call::<u8>("take", ()).await.unwrap_err();
        let remote = error.as_remote().unwrap();
        assert_eq!(remote.exc_type, "Error");
        assert_eq!(remote.value, "cannot take the item");

        // A registered exception keeps its type below a context.
        let error = stock.call::<()>("find", ()).await.unwrap_err();
        assert_eq!(error.downcast_ref::<NotFound>().unwrap().id, 3);

        let error = stock.call::<u32>("convert", ("x",)).await.unwrap_err();
        assert_eq!(error.as_remote().unwrap().value, "not a number");
        let error = stock.call::<u32>("convert", ("7",)).await.unwrap_err();
        assert_eq!(error.as_remote().unwrap().exc_type, "Late");
        cluster.stop().await;
        runner.stop().await;
    }
}
