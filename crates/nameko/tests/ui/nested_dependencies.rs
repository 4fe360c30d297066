//! A field with `#[dependencies]` is a struct that derives `Dependencies`.

use nameko::prelude::*;

struct Plain;

#[derive(Dependencies)]
struct Common {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[derive(Dependencies)]
struct NotDerived {
    #[dependencies]
    plain: Plain,
}

#[derive(Dependencies)]
struct WithArguments {
    #[dependencies(Common)]
    common: Common,
}

#[derive(Dependencies)]
struct Both {
    #[dependencies]
    #[dependency(CurrentWorker)]
    common: Common,
}

#[derive(Dependencies)]
struct NotCloned {
    #[dependency(Provide(Plain))]
    plain: Plain,
}

fn main() {}
