//! A service is a struct with named fields.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Tuple(#[dependency(CurrentWorker)] WorkerContext);

#[derive(Dependencies)]
struct EmptyTuple();

#[derive(Dependencies)]
enum Enum {
    Variant,
}

#[derive(Dependencies)]
union Union {
    a: u8,
}

#[derive(Dependencies)]
struct Generic<T> {
    #[dependency(CurrentWorker)]
    worker: T,
}

#[derive(Dependencies)]
struct Lifetime<'a> {
    #[dependency(RpcProxy::new("other"))]
    other: &'a ServiceProxy,
}

fn main() {}
