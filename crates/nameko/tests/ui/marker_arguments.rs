//! Arguments and combinations of markers.

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

    #[event_handler("shop", eager = true)]
    async fn paid(&self, order: u64, more: u64) -> Result<()> {
        let _ = (order, more);
        Ok(())
    }

    #[consume(Queue::new("both"))]
    async fn both(&self, body: String, message: RawMessage) -> Result<()> {
        drop((body, message));
        Ok(())
    }

    #[timer]
    async fn tick(&self, at: u64) -> Result<()> {
        let _ = at;
        Ok(())
    }

    #[http("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<String> {
        Ok(id.to_string())
    }

    #[websocket_rpc]
    async fn subscribe(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Greeter];
}
