//! Events: a service dispatches events, other services handle them.
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
//! An event is published to the topic exchange `{service}.events` with its type as the routing key.
//! Handlers have or share queues, see [`HandlerType`]. The names are those of Nameko, so that the
//! instances of a service may be written in different languages.

mod dispatcher;
mod handler;
mod standalone;

pub use dispatcher::{Dispatcher, Dispatching, EventDispatcher};
pub use handler::{BroadcastIdentifier, EventHandler, HandlerType};
pub use standalone::StandaloneDispatcher;
