//! Events: a service tells what has happened, and whoever wants to hears of it.
//!
//! ```no_run
//! use nameko::prelude::*;
//!
//! #[derive(Dependencies)]
//! struct Shop {
//!     #[dependency(EventDispatcher::new())]
//!     events: Dispatcher,
//! }
//!
//! #[service("shop")]
//! impl Shop {
//!     #[rpc]
//!     async fn pay(&self, order: u32) -> Result<()> {
//!         self.events.dispatch("order_paid", &order).await
//!     }
//! }
//!
//! #[derive(Dependencies)]
//! struct Warehouse;
//!
//! #[service("warehouse")]
//! impl Warehouse {
//!     #[event_handler("shop", "order_paid")]
//!     async fn pack(&self, order: u32) -> Result<()> {
//!         println!("packing {order}");
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     nameko::main(services![Shop, Warehouse])
//! }
//! ```
//!
//! An event goes to the topic exchange `{service}.events`, with its type as the routing key. Each handler has a queue there,
//! or shares one: see [`HandlerType`]. Names are those of Nameko, so that instances of one service may be written in
//! different languages.

mod dispatcher;
mod handler;
mod standalone;

pub use dispatcher::{Dispatcher, Dispatching, EventDispatcher};
pub use handler::{BroadcastIdentifier, EventHandler, HandlerType};
pub use standalone::StandaloneDispatcher;
