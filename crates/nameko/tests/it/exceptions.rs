//! Errors that keep their type across services.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use nameko::{
    Cluster, Fault, RemoteError, amqp::Table, exceptions, prelude::*, serialization, services,
    testing,
};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// Fields of every shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Exception)]
#[error("refused")]
#[exception("shop.exceptions.Refused")]
struct Refused {
    note: Option<String>,
    numbers: Vec<u32>,
    pair: (bool, i64),
    money: Money,
    stock: BTreeMap<String, Option<i32>>,
    by_number: BTreeMap<u16, f64>,
    pause: Duration,
    details: Value,
    wide: u128,
    state: State,
    unit: (),
    nested: Option<Vec<Option<bool>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Money {
    cents: i64,
    rate: f64,
    currency: Currency,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Currency(String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Held(u8),
    Sent { at: u64, by: Option<String> },
}

/// Text that may look like another value.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop_oneof![
            Just("None"),
            Just("True"),
            Just("17"),
            Just("null"),
            Just("NaN")
        ]
        .prop_map(str::to_owned),
    ]
}

fn float() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN is not equal to itself", |it| !it.is_nan())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("JSON has finite numbers", |it| {
            Some(Value::Number(serde_json::Number::from_f64(it)?))
        }),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn refused() -> impl Strategy<Value = Refused> {
    let state = prop_oneof![
        Just(State::Open),
        any::<u8>().prop_map(State::Held),
        (any::<u64>(), proptest::option::of(text())).prop_map(|(at, by)| State::Sent { at, by }),
    ];
    let money = (any::<i64>(), float(), text()).prop_map(|(cents, rate, currency)| Money {
        cents,
        rate,
        currency: Currency(currency),
    });
    let stock = proptest::collection::btree_map(text(), any::<Option<i32>>(), 0..4);
    let by_number = proptest::collection::btree_map(any::<u16>(), float(), 0..4);
    let simple = (
        proptest::option::of(text()),
        any::<Vec<u32>>(),
        any::<(bool, i64)>(),
        any::<Duration>(),
        any::<u128>(),
        any::<Option<Vec<Option<bool>>>>(),
    );
    (simple, money, stock, by_number, value(), state).prop_map(
        |((note, numbers, pair, pause, wide, nested), money, stock, by_number, details, state)| {
            Refused {
                note,
                numbers,
                pair,
                money,
                stock,
                by_number,
                pause,
                details,
                wide,
                state,
                unit: (),
                nested,
            }
        },
    )
}

proptest::proptest! {
    #[test]
    fn every_field_of_an_exception_survives_the_wire(sent in refused()) {
        let body = serialization::to_vec(&sent.to_fault()).unwrap();
        let fault: Fault = serialization::from_slice(&body).unwrap();
        let received = Refused::from_remote(&RemoteError::from(fault));
        proptest::prop_assert_eq!(received, Some(sent));
    }
}

#[test]
fn python_peers_receive_the_leaves_as_text() {
    let error = ShopError::OutOfStock {
        item: "tea".to_owned(),
        left: 3,
    };
    let fault = serde_json::to_value(error.to_fault()).unwrap();
    assert_eq!(fault["exc_args"], json!(["tea", "3"]));
    assert_eq!(fault["exc_path"], "shop.exceptions.OutOfStock");
    assert_eq!(fault["value"], "only 3 of tea left");
}

/// As a Python service would raise it.
#[derive(Debug, PartialEq, thiserror::Error, Exception)]
#[error("from Python")]
#[exception("shop.exceptions.Python")]
struct FromPython {
    note: Option<String>,
    left: Option<u8>,
    numbers: Vec<u32>,
    flags: (bool, f64),
    by_number: HashMap<u8, Option<bool>>,
    currency: Currency,
    state: State,
    details: Value,
}

#[test]
fn leaves_of_python_peers_are_parsed_for_the_types_of_the_fields() {
    let received = |args: Value| {
        let fault = json!({
            "exc_type": "Python",
            "exc_path": "shop.exceptions.Python",
            "exc_args": args,
            "value": "from Python",
        });
        let fault: Fault = serde_json::from_value(fault).unwrap();
        FromPython::from_remote(&RemoteError::from(fault))
    };
    let args = json!([
        "None", "None", ["1", "2"], ["True", "1e+16"], {"3": "None", "4": "False"}, "EUR",
        {"Held": "7"}, ["17", "x"]
    ]);
    let expected = FromPython {
        note: None,
        left: None,
        numbers: vec![1, 2],
        flags: (true, 1e16),
        by_number: HashMap::from([(3, None), (4, Some(false))]),
        currency: Currency("EUR".to_owned()),
        state: State::Held(7),
        // Its type is not known, so that leaves stay text.
        details: json!(["17", "x"]),
    };
    assert_eq!(received(args), Some(expected));
    let args = json!([
        "None",
        "None",
        ["many"],
        ["True", "1"],
        {},
        "EUR",
        "Open",
        "x"
    ]);
    assert_eq!(received(args), None);
}

#[derive(Debug, PartialEq, thiserror::Error, Exception)]
#[error("by pairs")]
#[exception("shop.exceptions.Pairs")]
struct Pairs(BTreeMap<(u8, u8), u8>);

#[test]
fn fields_that_json_cannot_represent_are_omitted() {
    let fault = Pairs(BTreeMap::from([((1, 2), 3)])).to_fault();
    let body = serialization::to_vec(&fault).unwrap();
    let fault: Fault = serialization::from_slice(&body).unwrap();
    assert_eq!(
        (fault.exc_args.len(), fault.value.as_str()),
        (0, "by pairs")
    );
    assert_eq!(Pairs::from_remote(&RemoteError::from(fault)), None);
}

#[derive(Dependencies)]
struct Typed;

#[service("typed")]
impl Typed {
    #[rpc]
    async fn refuse(&self) -> Result<(), Refused> {
        Err(example())
    }
}

fn example() -> Refused {
    Refused {
        note: None,
        numbers: vec![1, 2],
        pair: (true, -1),
        money: Money {
            cents: 5,
            rate: f64::INFINITY,
            currency: Currency("17".to_owned()),
        },
        stock: BTreeMap::from([("tea".to_owned(), None)]),
        by_number: BTreeMap::from([(7, 1.0)]),
        pause: Duration::from_millis(1500),
        details: json!({"a": [null, 1, "1", true]}),
        wide: u128::MAX,
        state: State::Sent { at: 1, by: None },
        unit: (),
        nested: Some(vec![None, Some(true)]),
    }
}

#[tokio::test]
async fn every_field_arrives_in_every_format() {
    exceptions::register::<Refused>();
    let broker = support::broker().await;
    let mut config = broker.config();
    if cfg!(feature = "msgpack") {
        config.set("ACCEPT", json!(["json", "msgpack"]));
    }
    let typed = Container::new::<Typed>(config.clone()).unwrap();
    typed.start().await.unwrap();
    let cluster = Cluster::connect(&config).await.unwrap();
    let proxy = cluster.service("typed");
    let mut formats = vec![proxy.clone()];
    if cfg!(feature = "msgpack") {
        formats.push(proxy.with_serializer("msgpack").unwrap());
    }
    for proxy in formats {
        let error = proxy.call::<()>("refuse", ()).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&example()), "{error:?}");
    }
    cluster.stop().await;
    typed.stop().await;
}
