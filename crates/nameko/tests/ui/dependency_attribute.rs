//! A field has exactly one provider.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Missing {
    worker: WorkerContext,
    r#type: ServiceProxy,
}

#[derive(Dependencies)]
struct Empty {
    #[dependency]
    bare: WorkerContext,
    #[dependency()]
    empty: WorkerContext,
    #[dependency = "CurrentWorker"]
    text: WorkerContext,
}

#[derive(Dependencies)]
struct Malformed {
    #[dependency(RpcProxy "service_y")]
    y: ServiceProxy,
    #[dependency(CurrentWorker, CurrentWorker)]
    worker: WorkerContext,
}

#[derive(Dependencies)]
struct Twice {
    #[dependency(CurrentWorker)]
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[derive(Dependencies)]
#[dependency(CurrentWorker)]
struct OnStruct;

fn main() {}
