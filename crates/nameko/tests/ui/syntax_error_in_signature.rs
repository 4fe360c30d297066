//! A syntax error in a signature has no follow-up errors.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[rpc]
    async fn wrong(&self, id u64) -> Result<u64> {
        Ok(id)
    }

    #[rpc]
    async fn right(&self, id: u64) -> Result<u64> {
        Ok(id)
    }
}

fn main() -> ExitCode {
    nameko::main(services![Orders])
}
