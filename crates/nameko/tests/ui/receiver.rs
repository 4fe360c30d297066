//! Entrypoints take `&self`.

use std::sync::Arc;

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn by_value(self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn by_mutable_value(mut self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn mutable(&mut self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn shared(self: Arc<Self>) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn none() -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn none_with_argument(name: String) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Greeter];
}
