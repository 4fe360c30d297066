//! `#[rpc]` stands once, takes no arguments and is not conditional.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc(name = "hi")]
    async fn hello(&self) -> Result<()> {
        Ok(())
    }

    #[rpc = "hi"]
    async fn hey(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    #[rpc]
    async fn twice(&self) -> Result<()> {
        Ok(())
    }

    #[cfg_attr(all(), rpc)]
    async fn conditional(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Greeter];
}
