//! The error type implements the error traits.

use nameko::prelude::*;

struct OutOfStock;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[rpc]
    async fn buy(&self) -> Result<(), OutOfStock> {
        Err(OutOfStock)
    }

    #[rpc]
    async fn text(&self) -> Result<(), String> {
        Err("out of stock".into())
    }
}

fn main() {}
