//! A shop tells what was paid; a warehouse packs it, and every cache forgets it: `cargo run --bin events -- run`.
//!
//! `cargo run --bin events -- call shop.pay order=17` pays.

use std::io::{Write, stdout};

use nameko::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Paid {
    order: u32,
}

#[derive(Dependencies)]
struct Shop {
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
}

#[service("shop")]
impl Shop {
    #[rpc]
    async fn pay(&self, order: u32) -> Result<()> {
        self.events.dispatch("order_paid", &Paid { order }).await
    }
}

#[derive(Dependencies)]
struct Warehouse;

#[service("warehouse")]
impl Warehouse {
    /// One instance packs each order, also when none was running when it was paid.
    #[event_handler("shop", "order_paid")]
    async fn pack(&self, paid: Paid) -> Result<()> {
        writeln!(stdout(), "packed order {}", paid.order)?;
        Ok(())
    }
}

#[derive(Dependencies)]
struct Cache;

#[service("cache")]
impl Cache {
    /// Every instance forgets what it knew, whatever has happened; one that was not running knew nothing.
    #[event_handler("shop", "#", handler_type = broadcast, reliable_delivery = false)]
    async fn forget(&self, paid: Paid) -> Result<()> {
        writeln!(stdout(), "forgot order {}", paid.order)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Shop, Warehouse, Cache])
}
