//! A field has the type that its provider injects.

use std::collections::HashMap;

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter {
    #[dependency(RpcProxy::new("other"))]
    other: String,
    #[dependency(CurrentWorker)]
    worker: HashMap<String, Vec<u8>>,
    #[dependency(RpcProxy::new("right"))]
    right: ServiceProxy,
}

fn main() {}
