//! A shop dispatches an event, a warehouse and all caches handle it:
//! `cargo run --bin events -- run`.
//!
//! To pay an order: `cargo run --bin events -- call shop.pay order=17`.

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
    /// Runs in one instance per order. The queue keeps orders paid while no instance ran.
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
    /// Runs in every instance, for any event. An instance that was not running has nothing to
    /// forget.
    #[event_handler("shop", "#", handler_type = broadcast, reliable_delivery = false)]
    async fn forget(&self, paid: Paid) -> Result<()> {
        writeln!(stdout(), "forgot order {}", paid.order)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Shop, Warehouse, Cache])
}
