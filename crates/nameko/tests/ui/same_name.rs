//! Names of entrypoints are unique.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn hello(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn r#hello(&self, name: String) -> Result<()> {
        let _ = name;
        Ok(())
    }
}

fn main() {}
