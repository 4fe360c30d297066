//! Testing helpers.

use std::{collections::BTreeMap, time::Duration};

use nameko::{
    prelude::*,
    testing::{self, Dummy, entrypoint_hook, entrypoint_waiter},
};

use crate::support::within;

/// A provider with a hook that fails on request.
struct Fragile;

impl DependencyProvider for Fragile {
    type Dependency = ();

    async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
        Ok(())
    }

    async fn worker_teardown(&self, ctx: &WorkerContext) -> Result<()> {
        match ctx.get("break") {
            Some(_) => Err(Error::fatal("the provider is broken")),
            None => Ok(()),
        }
    }
}

#[derive(Dependencies)]
struct Shop {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(Fragile)]
    _fragile: (),
}

#[service("shop")]
impl Shop {
    #[entrypoint(Dummy)]
    async fn sell(&self, what: String, count: Option<u32>) -> Result<String> {
        let count = count.unwrap_or(1);
        if what == "nothing" {
            return Err(Error::raise("NotFound", "we sell everything but that"));
        }
        Ok(format!("{count} {what}"))
    }

    #[entrypoint(Dummy)]
    async fn language(&self) -> Result<Option<String>> {
        let language = self.worker.get("language");
        Ok(language.and_then(|language| language.as_str().map(str::to_owned)))
    }

    #[entrypoint(Dummy)]
    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }
}

async fn shop() -> Container {
    let container = Container::new::<Shop>(Config::new()).unwrap();
    within("the start", container.start()).await.unwrap();
    container
}

#[tokio::test]
async fn a_hook_takes_arguments_like_a_proxy() {
    let shop = shop().await;
    let sell = entrypoint_hook(&shop, "sell");
    assert_eq!(sell.call::<String>(("tea",)).await.unwrap(), "1 tea");
    assert_eq!(sell.call::<String>(("tea", 3)).await.unwrap(), "3 tea");
    let named = BTreeMap::from([("what", "tea")]);
    assert_eq!(sell.call::<String>(named).await.unwrap(), "1 tea");
    let error = sell.call::<String>(()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "sell() missing 1 required positional argument: 'what'"
    );
    assert_eq!(sell.call::<String>("tea").await.unwrap(), "1 tea");
    shop.stop().await;
}

#[tokio::test]
async fn a_hook_fails_with_the_error_of_the_method() {
    let shop = shop().await;
    let sell = entrypoint_hook(&shop, "sell");
    let error = sell.call::<String>(("nothing",)).await.unwrap_err();
    let Error::Raised(fault) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(fault.exc_type, "NotFound");
    let error = sell.call::<u8>(("tea",)).await.unwrap_err();
    assert!(matches!(error, Error::Serialization(_)), "{error:?}");
    let error = entrypoint_hook(&shop, "buy").call::<()>(()).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "shop has no entrypoint `buy`; there are: hang, language, sell"
    );
    shop.stop().await;
    let error = sell.call::<String>(("tea",)).await.unwrap_err();
    assert!(matches!(error, Error::ContainerStopping(_)), "{error:?}");
}

#[tokio::test]
async fn a_hook_requires_a_started_container() {
    let shop = Container::new::<Shop>(Config::new()).unwrap();
    let sold = entrypoint_hook(&shop, "sell")
        .call::<String>(("tea",))
        .await;
    assert!(
        sold.unwrap_err()
            .to_string()
            .starts_with("shop is not started")
    );
}

#[tokio::test]
async fn a_hook_passes_context_data() {
    let shop = shop().await;
    let language = entrypoint_hook(&shop, "language");
    assert_eq!(language.call::<Option<String>>(()).await.unwrap(), None);
    let language = language.context("language", "fr");
    let found: Option<String> = language.call(()).await.unwrap();
    assert_eq!(found.as_deref(), Some("fr"));
    shop.stop().await;
}

#[tokio::test]
async fn a_hook_reports_a_killed_container() {
    let shop = shop().await;
    let sell = entrypoint_hook(&shop, "sell").context("break", true);
    let error = sell.call::<String>(("tea",)).await.unwrap_err();
    assert!(matches!(error, Error::Killed { .. }), "{error:?}");
    assert_eq!(error.to_string(), "shop was killed: the provider is broken");
}

#[tokio::test(start_paused = true)]
async fn hooks_and_waiters_time_out() {
    let shop = shop().await;
    let mut ended = entrypoint_waiter(&shop, "hang").timeout(Duration::from_millis(10));
    let error = entrypoint_hook(&shop, "hang").call::<()>(()).await;
    assert!(error.unwrap_err().is_timeout());
    let error = ended.next().await.unwrap_err();
    assert_eq!(error.to_string(), "Timeout on shop.hang after 0.01 seconds");
    shop.stop().await;
}

#[tokio::test]
async fn a_waiter_returns_each_worker_in_order() {
    let shop = shop().await;
    let sell = entrypoint_hook(&shop, "sell");
    sell.call::<String>(("before",)).await.unwrap();
    let mut sold = entrypoint_waiter(&shop, "sell");
    for what in ["tea", "nothing", "milk"] {
        let _ = sell.call::<String>((what,)).await;
    }
    entrypoint_hook(&shop, "language")
        .call::<Option<String>>(())
        .await
        .unwrap();
    assert_eq!(sold.result::<String>().await.unwrap(), "1 tea");
    let ended = sold.next().await.unwrap();
    assert_eq!(ended.worker().to_string(), "shop.sell");
    let error = ended.result::<String>().unwrap_err();
    assert_eq!(error.to_string(), "we sell everything but that");
    assert_eq!(sold.result::<String>().await.unwrap(), "1 milk");
    shop.stop().await;
    let error = sold.next().await.unwrap_err();
    assert!(matches!(error, Error::ContainerStopping(_)), "{error:?}");
}

#[tokio::test]
async fn a_waiter_filters_by_its_condition() {
    let shop = shop().await;
    let mut count = 0;
    let mut third = entrypoint_waiter(&shop, "sell").when(move |_worker, _outcome| {
        count += 1;
        count == 3
    });
    let mut failure = entrypoint_waiter(&shop, "sell").when(|_worker, outcome| outcome.is_err());
    let sell = entrypoint_hook(&shop, "sell");
    for what in ["tea", "milk", "sugar", "nothing"] {
        let _ = sell.call::<String>((what,)).await;
    }
    assert_eq!(third.result::<String>().await.unwrap(), "1 sugar");
    let error = failure.result::<String>().await.unwrap_err();
    assert_eq!(error.to_string(), "we sell everything but that");
    shop.stop().await;
}

#[tokio::test]
async fn a_waiter_for_an_unknown_method_lists_the_known_ones() {
    let shop = shop().await;
    let error = entrypoint_waiter(&shop, "buy").next().await.unwrap_err();
    assert!(error.to_string().contains("there are: hang"), "{error}");
    shop.stop().await;
}

#[tokio::test]
async fn test_brokers_are_isolated() {
    let (one, other) = (testing::broker().await, testing::broker().await);
    assert_ne!(one.uri(), other.uri());
    let cluster = Cluster::connect(&one.config()).await.unwrap();
    let error = cluster.service("shop").call::<()>("sell", ()).await;
    assert!(error.unwrap_err().is_unknown_service());
    cluster.stop().await;
}
