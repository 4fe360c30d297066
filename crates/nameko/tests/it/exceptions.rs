//! Errors that keep their type across services.

use nameko::{Cluster, RemoteError, amqp::Table, exceptions, prelude::*, services, testing};
use serde_json::json;

use crate::support::{self, TestBroker};

#[derive(Debug, PartialEq, thiserror::Error, Exception)]
enum ShopError {
    #[error("no order {0}")]
    #[exception("shop.exceptions.NotFound")]
    NotFound(u64),
    #[error("only {left} of {item} left")]
    #[exception("shop.exceptions.OutOfStock")]
    OutOfStock { item: String, left: u32 },
    #[error("closed")]
    #[exception("shop.exceptions.Closed")]
    Closed,
}

/// A type that is not registered.
#[derive(Debug, thiserror::Error, Exception)]
#[error("{0} is private")]
#[exception("shop.exceptions.Private")]
struct Private(String);

#[derive(Dependencies)]
struct Shop;

#[service("shop")]
impl Shop {
    #[rpc]
    async fn fail(&self, how: String) -> Result<(), ShopError> {
        Err(match how.as_str() {
            "not found" => ShopError::NotFound(17),
            "out of stock" => ShopError::OutOfStock {
                item: "tea".to_owned(),
                left: 3,
            },
            _ => ShopError::Closed,
        })
    }

    #[rpc]
    async fn private(&self) -> Result<(), Private> {
        Err(Private("the ledger".to_owned()))
    }

    /// An error as a Python service may send it.
    #[rpc]
    async fn misfit(&self) -> Result<()> {
        Err(Misfit.into())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("odd")]
struct Misfit;

impl Exception for Misfit {
    const PATHS: &[&str] = &[];

    fn to_fault(&self) -> nameko::Fault {
        nameko::Fault::exception("shop.exceptions.NotFound", ["many", "arguments"], self)
    }

    fn from_remote(_: &RemoteError) -> Option<Self> {
        None
    }
}

impl From<Misfit> for nameko::Error {
    fn from(error: Misfit) -> Self {
        Self::from_exception(error)
    }
}

#[derive(Dependencies)]
struct Front {
    #[dependency(RpcProxy::new("shop"))]
    shop: ServiceProxy,
}

#[service("front")]
impl Front {
    /// Propagates the errors of the shop.
    #[rpc]
    async fn pass(&self, method: String, how: Option<String>) -> Result<()> {
        match how {
            Some(how) => self.shop.call(&method, (how,)).await,
            None => self.shop.call(&method, ()).await,
        }
    }
}

async fn start(broker: &TestBroker) -> (nameko::Runner, Cluster) {
    exceptions::register::<ShopError>();
    let runner = support::run(&services![Shop, Front], broker).await;
    let cluster = Cluster::connect_with(&broker.config(), Table::new()).await;
    (runner, cluster.unwrap())
}

#[tokio::test]
async fn a_registered_error_keeps_its_type_at_the_caller() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&broker).await;
    let (shop, front) = (cluster.service("shop"), cluster.service("front"));
    for (how, expected) in [
        ("not found", ShopError::NotFound(17)),
        (
            "out of stock",
            ShopError::OutOfStock {
                item: "tea".to_owned(),
                left: 3,
            },
        ),
        ("closed", ShopError::Closed),
    ] {
        let error = shop.call::<()>("fail", (how,)).await.unwrap_err();
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(error.downcast_ref(), Some(&expected));

        // From the hook of a test, too.
        let fail = testing::entrypoint_hook(&runner.containers()[0], "fail");
        let error = fail.call::<()>((how,)).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&expected));

        // Also through a service that propagates it.
        let error = front.call::<()>("pass", ("fail", how)).await.unwrap_err();
        assert_eq!(error.downcast::<ShopError>().unwrap(), expected);
    }
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn an_unregistered_error_is_a_remote_error_with_its_path() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&broker).await;
    let (shop, front) = (cluster.service("shop"), cluster.service("front"));

    let error = shop.call::<()>("private", ()).await.unwrap_err();
    assert!(!error.is::<Private>());
    let remote = error.as_remote().unwrap();
    assert_eq!(error.to_string(), "Private the ledger is private");
    assert_eq!(remote.exc_path, "shop.exceptions.Private");
    assert_eq!(remote.exc_args, [json!("the ledger")]);

    // As in Nameko, a service that does not know the class propagates a remote error.
    let error = front.call::<()>("pass", ("private",)).await.unwrap_err();
    let remote = error.as_remote().unwrap();
    assert_eq!(remote.exc_path, "nameko.exceptions.RemoteError");
    assert_eq!(remote.value, "Private the ledger is private");
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn mismatched_arguments_yield_a_remote_error() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&broker).await;
    let shop = cluster.service("shop");
    let error = shop.call::<()>("misfit", ()).await.unwrap_err();
    let remote = error.as_remote().unwrap();
    assert_eq!(remote.exc_type, "NotFound");
    assert_eq!(remote.exc_args, ["many", "arguments"]);
    cluster.stop().await;
    runner.stop().await;
}

#[test]
fn downcasting_works_without_a_broker() {
    let error = nameko::Error::from(ShopError::Closed);
    assert_eq!(error.downcast_ref(), Some(&ShopError::Closed));
    let error = nameko::Error::from_error(std::io::Error::other("disk"));
    assert!(error.is::<std::io::Error>() && !error.is::<ShopError>());
    let again = nameko::Error::from_error(error);
    assert!(again.is::<std::io::Error>(), "{again:?}");
    let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(ShopError::NotFound(1));
    let error = nameko::Error::from(boxed);
    assert_eq!(error.downcast_ref(), Some(&ShopError::NotFound(1)));
}
