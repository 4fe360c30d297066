//! `RawMessage` requires an entrypoint with a message.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Graves;

#[service("graves")]
impl Graves {
    #[rpc]
    async fn call(&self, message: RawMessage) -> Result<()> {
        drop(message);
        Ok(())
    }

    #[consume(Queue::new("perhaps"))]
    async fn perhaps(&self, message: Option<RawMessage>) -> Result<()> {
        drop(message);
        Ok(())
    }
}

fn main() {}
