//! Typed clients: injected, standalone, and mocked.

use std::time::Duration;

use nameko::{Cluster, Error, RpcClient, ServiceProxy, exceptions, prelude::*, services};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    lines: Vec<String>,
}

#[derive(Debug, PartialEq, thiserror::Error, Exception)]
#[error("no order {0}")]
#[exception("orders.NotFound")]
struct NotFound(u64);

#[derive(Dependencies)]
struct OrderService;

#[service("orders")]
impl OrderService {
    #[rpc]
    async fn find(&self, id: u64, archive: Option<bool>) -> Result<Order> {
        match (id, archive) {
            (17, None) => Ok(Order {
                id,
                lines: vec!["tea".to_owned()],
            }),
            (17, Some(archive)) => Ok(Order {
                id,
                lines: vec![archive.to_string()],
            }),
            _ => Err(NotFound(id).into()),
        }
    }

    #[rpc]
    async fn add(&self, order: Order, r#type: String, note: Option<String>) -> Result<String> {
        let lines = order.lines.join(" and ");
        Ok(format!("{type}: {lines}, {}", note.unwrap_or_default()))
    }

    #[rpc]
    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }

    #[rpc]
    async fn odd(&self) -> Result<&'static str> {
        Ok("not a number")
    }
}

/// A client of the orders service, written by another team.
#[rpc_client("orders")]
trait Orders {
    /// Finds an order.
    async fn find(&self, id: u64, archive: Option<bool>) -> Result<Order>;
    async fn add(&self, r#type: String, note: Option<String>, order: Order) -> Result<String>;
    async fn clear(&self) -> Result<()>;
    async fn hang(&self) -> Result<()>;
    async fn odd(&self) -> Result<u32>;
}

#[derive(Debug)]
enum CallError {
    Missing(u64),
    Other(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match error.downcast() {
            Ok(NotFound(id)) => Self::Missing(id),
            Err(error) => Self::Other(error),
        }
    }
}

#[rpc_client("orders", client = OrdersInOrder, positional)]
trait PositionalOrders {
    async fn find(
        &self,
        number: u64,
        archived: Option<bool>,
    ) -> std::result::Result<Order, CallError>;
}

#[derive(Dependencies)]
struct Desk {
    #[dependency(OrdersClient::provider().timeout(Duration::from_secs(20)))]
    orders: OrdersClient,
    #[dependency(RpcProxy::new("nobody").client::<OrdersInOrder>())]
    nobody: OrdersInOrder,
}

#[service("desk")]
impl Desk {
    #[rpc]
    async fn describe(&self, id: u64) -> Result<String> {
        match self.orders.find(id, None).await {
            Ok(order) => Ok(order.lines.join(", ")),
            Err(error) if error.is::<NotFound>() => Ok("nothing".to_owned()),
            Err(error) => Err(error),
        }
    }

    #[rpc]
    async fn ask_nobody(&self) -> Result<String> {
        match self.nobody.find(1, None).await {
            Err(CallError::Other(error)) if error.is_unknown_service() => Ok("nobody".to_owned()),
            other => Ok(format!("{other:?}")),
        }
    }
}

#[tokio::test]
async fn a_service_calls_through_an_injected_client() {
    exceptions::register::<NotFound>();
    let broker = support::broker().await;
    let runner = support::run(&services![OrderService, Desk], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let desk = cluster.service("desk");
    assert_eq!(desk.call::<String>("describe", (17,)).await.unwrap(), "tea");
    assert_eq!(
        desk.call::<String>("describe", (18,)).await.unwrap(),
        "nothing"
    );
    assert_eq!(
        desk.call::<String>("ask_nobody", ()).await.unwrap(),
        "nobody"
    );
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn a_program_calls_through_a_cluster_client() {
    exceptions::register::<NotFound>();
    let broker = support::broker().await;
    let runner = support::run(&services![OrderService], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let orders: OrdersClient = cluster.client();

    let order = orders.find(17, Some(true)).await.unwrap();
    assert_eq!(order.lines, ["true"]);
    // Arguments are sent by name: their order does not matter, optional ones may be omitted.
    let text = orders
        .add("new".to_owned(), None, order.clone())
        .await
        .unwrap();
    assert_eq!(text, "new: true, ");
    let note = Some("soon".to_owned());
    let text = orders.add("new".to_owned(), note, order).await.unwrap();
    assert_eq!(text, "new: true, soon");
    orders.clear().await.unwrap();

    let error = orders.find(3, None).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&NotFound(3)));
    let error = orders.odd().await.unwrap_err();
    assert!(matches!(error, Error::Serialization(_)), "{error:?}");
    let error = orders
        .with_timeout(Duration::from_millis(50))
        .hang()
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");

    let in_order = cluster.client::<OrdersInOrder>();
    assert_eq!(in_order.find(17, None).await.unwrap().lines, ["tea"]);
    assert_eq!(
        in_order.find(17, Some(false)).await.unwrap().lines,
        ["false"]
    );
    let error = in_order.find(4, None).await.unwrap_err();
    assert!(matches!(error, CallError::Missing(4)), "{error:?}");
    cluster.stop().await;
    runner.kill();
}

struct Fake;

impl Orders for Fake {
    async fn find(&self, id: u64, _archive: Option<bool>) -> Result<Order> {
        match id {
            1 => Ok(Order {
                id,
                lines: vec!["mock".to_owned()],
            }),
            2 => Err("out of order".into()),
            _ => Err(NotFound(id).into()),
        }
    }

    async fn add(&self, _: String, _: Option<String>, _: Order) -> Result<String> {
        unreachable!("not in these tests")
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }

    async fn odd(&self) -> Result<u32> {
        Ok(1)
    }
}

#[tokio::test]
async fn a_mock_replaces_the_service() {
    let desk = Desk {
        orders: OrdersClient::mock(Fake),
        nobody: ServiceProxy::mock("nobody", |_, _, _| Err("hush".into())).into(),
    };
    assert_eq!(desk.describe(1).await.unwrap(), "mock");
    assert_eq!(
        desk.describe(2).await.unwrap_err().to_string(),
        "out of order"
    );
    assert_eq!(desk.describe(3).await.unwrap(), "nothing");
    assert!(desk.ask_nobody().await.unwrap().contains("hush"));
    let orders = desk.orders.clone().with_timeout(None);
    orders.clear().await.unwrap();
    assert_eq!(orders.odd().await.unwrap(), 1);
}

/// Observes the arguments that a mock of the service receives.
#[tokio::test]
async fn arguments_are_sent_by_name_or_by_position() {
    let echo =
        |method: &str, args: Value, kwargs: Value| Ok(json!(format!("{method} {args} {kwargs}")));

    #[rpc_client("any")]
    trait Named {
        async fn f(&self, a: u8, b: Option<u8>, c: Option<u8>) -> Result<String>;
        async fn none(&self) -> Result<String>;
    }

    #[rpc_client("any", positional)]
    trait Positional {
        async fn f(&self, a: u8, b: Option<u8>, c: Option<u8>) -> Result<String>;
        async fn none(&self) -> Result<String>;
    }

    assert_eq!(
        (NamedClient::SERVICE, PositionalClient::SERVICE),
        ("any", "any")
    );
    let named = NamedClient::from(ServiceProxy::mock("any", echo));
    for (b, c, expected) in [
        (Some(2), Some(3), r#"f [] {"a":1,"b":2,"c":3}"#),
        (None, Some(3), r#"f [] {"a":1,"c":3}"#),
        (None, None, r#"f [] {"a":1}"#),
    ] {
        assert_eq!(named.f(1, b, c).await.unwrap(), expected);
    }
    assert_eq!(named.none().await.unwrap(), "none [] {}");
    let positional = PositionalClient::from(ServiceProxy::mock("any", echo));
    for (b, c, expected) in [
        (Some(2), Some(3), "f [1,2,3] {}"),
        (None, Some(3), "f [1,null,3] {}"),
        (Some(2), None, "f [1,2] {}"),
        (None, None, "f [1] {}"),
    ] {
        assert_eq!(positional.f(1, b, c).await.unwrap(), expected);
    }
    assert_eq!(positional.none().await.unwrap(), "none [] {}");
}

/// Clients and their call futures move between tasks.
#[test]
fn clients_and_calls_are_send() {
    fn sent<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn call_sent(_: impl Send) {}

    let orders = OrdersClient::mock(Fake);
    sent(&orders);
    call_sent(orders.find(1, None));
}

#[rpc_client("stock")]
trait Counts {
    async fn count(&self, item: String) -> Result<u32>;
}

#[tokio::test]
async fn an_error_about_the_result_type_names_the_method() {
    let stock = || ServiceProxy::mock("stock", |_method, _args, _kwargs| Ok("many".into()));
    let expected = "the result of stock.count: invalid type: string \"many\", expected u32";

    let typed = CountsClient::from(stock()).count("nut".into()).await;
    assert_eq!(typed.unwrap_err().to_string(), expected);
    let untyped = stock().call::<u32>("count", ("nut",)).await;
    assert_eq!(untyped.unwrap_err().to_string(), expected);
}
