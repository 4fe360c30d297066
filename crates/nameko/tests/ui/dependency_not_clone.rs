//! A value that every worker receives must be `Clone`.

use nameko::{Shared, prelude::*};

struct Pool;

async fn database(_: Config) -> Result<Pool> {
    Ok(Pool)
}

#[derive(Dependencies)]
struct Greeter {
    #[dependency(Provide(Pool))]
    provided: Pool,
    #[dependency(Shared::new(database))]
    shared: Pool,
}

fn main() {}
