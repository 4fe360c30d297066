//! The result of a call has a type.

use nameko::prelude::*;

#[rpc_client("orders")]
trait OrderService {
    async fn cancel(&self, id: u64) -> Result<()>;
}

#[derive(Dependencies)]
struct Desk {
    #[dependency(RpcProxy::new("orders"))]
    orders: ServiceProxy,
}

struct Order;

#[service("desk")]
impl Desk {
    #[rpc]
    async fn unnamed(&self, id: u64) -> Result<()> {
        self.orders.call("cancel", (id,)).await?;
        Ok(())
    }

    #[rpc]
    async fn unreadable(&self, id: u64) -> Result<()> {
        let _order: Order = self.orders.call("find", id).await?;
        Ok(())
    }

    #[rpc]
    async fn named(&self, id: u64) -> Result<()> {
        let _: () = self.orders.call("cancel", id).await?;
        Ok(())
    }
}

fn main() {}
