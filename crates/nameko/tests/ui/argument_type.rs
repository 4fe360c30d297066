//! Arguments must be deserializable.

use nameko::prelude::*;

struct Order;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[rpc]
    async fn add(&self, order: Order) -> Result<()> {
        let _ = order;
        Ok(())
    }

    #[rpc]
    async fn add_all(&self, orders: Vec<Order>) -> Result<()> {
        let _ = orders;
        Ok(())
    }
}

fn main() {}
