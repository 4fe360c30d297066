//! Results must be serializable.

use nameko::prelude::*;

struct Order;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[rpc]
    async fn get(&self) -> Result<Order> {
        Ok(Order)
    }

    #[rpc]
    async fn list(&self) -> Result<Vec<Order>> {
        Ok(Vec::new())
    }
}

fn main() {}
