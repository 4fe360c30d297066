//! The arguments of `call`: a list, a map, or a single value.

use std::collections::BTreeMap;

use nameko::{prelude::*, serialization::Payload};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct OrderId(u64);

#[derive(Serialize)]
struct Named {
    id: u64,
}

#[derive(Serialize)]
struct Nothing;

#[derive(Serialize)]
enum Filter {
    All,
    Id(u64),
    Range(u64, u64),
    Named { id: u64 },
}

/// Returns the positional and the named arguments that a call sends.
async fn sent(arguments: impl Serialize) -> Value {
    let proxy = ServiceProxy::mock("orders", |_, args, kwargs| Ok(json!([args, kwargs])));
    proxy.call("find", arguments).await.unwrap()
}

#[tokio::test]
async fn a_single_value_is_the_only_argument() {
    assert_eq!(sent(17).await, json!([[17], {}]));
    assert_eq!(sent("tea").await, json!([["tea"], {}]));
    assert_eq!(sent(String::from("tea")).await, json!([["tea"], {}]));
    assert_eq!(sent(true).await, json!([[true], {}]));
    assert_eq!(sent(1.5).await, json!([[1.5], {}]));
    assert_eq!(sent('x').await, json!([["x"], {}]));
    assert_eq!(sent(OrderId(17)).await, json!([[17], {}]));
    assert_eq!(sent(Some(17)).await, json!([[17], {}]));
    assert_eq!(sent(None::<u64>).await, json!([[null], {}]));
    assert_eq!(sent(json!("tea")).await, json!([["tea"], {}]));
    assert_eq!(sent(Payload::of(&17).unwrap()).await, json!([[17], {}]));
    assert_eq!(sent(Filter::All).await, json!([["All"], {}]));
    assert_eq!(sent(Filter::Id(1)).await, json!([[{"Id": 1}], {}]));
    assert_eq!(
        sent(Filter::Range(1, 2)).await,
        json!([[{"Range": [1, 2]}], {}])
    );
    assert_eq!(
        sent(Filter::Named { id: 1 }).await,
        json!([[{"Named": {"id": 1}}], {}])
    );
}

#[tokio::test]
async fn lists_and_maps_are_the_arguments() {
    assert_eq!(sent(()).await, json!([[], {}]));
    assert_eq!(sent(Nothing).await, json!([[], {}]));
    assert_eq!(sent((17,)).await, json!([[17], {}]));
    assert_eq!(sent((17, "tea")).await, json!([[17, "tea"], {}]));
    assert_eq!(sent(vec![1, 2]).await, json!([[1, 2], {}]));
    assert_eq!(sent((vec![1, 2],)).await, json!([[[1, 2]], {}]));
    assert_eq!(sent(Named { id: 17 }).await, json!([[], {"id": 17}]));
    assert_eq!(sent(&Named { id: 17 }).await, json!([[], {"id": 17}]));
    assert_eq!(sent((Named { id: 17 },)).await, json!([[{"id": 17}], {}]));
    assert_eq!(
        sent(BTreeMap::from([("id", 17)])).await,
        json!([[], {"id": 17}])
    );
    assert_eq!(sent(json!({"id": 17})).await, json!([[], {"id": 17}]));
    assert_eq!(sent(json!([17])).await, json!([[17], {}]));
    assert_eq!(sent(json!(null)).await, json!([[], {}]));
}
