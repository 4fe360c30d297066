//! A syntax error in the body of a method is one error.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[rpc]
    async fn wrong(&self, id: u64) -> Result<u64> {
        let double = id * ;
        Ok(double)
    }

    #[rpc]
    async fn right(&self, id: u64) -> Result<u64> {
        Ok(id)
    }

    #[timer(interval = 5)]
    async fn tick(&self) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Orders])
}
