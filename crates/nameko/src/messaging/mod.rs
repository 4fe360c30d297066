//! Messaging on custom exchanges and queues with `Publisher` and `#[consume]`.
//!
//! ```no_run
//! use nameko::{amqp::{Exchange, Queue}, messaging::{MessagePublisher, Publisher}, prelude::*};
//!
//! #[derive(Dependencies)]
//! struct Mailer {
//!     #[dependency(Publisher::new(Exchange::direct("mail")).persistent(true))]
//!     mail: MessagePublisher,
//! }
//!
//! #[service("mailer")]
//! impl Mailer {
//!     #[consume(Queue::new("signups").quorum(), requeue_on_error)]
//!     async fn welcome(&self, name: String) -> Result<()> {
//!         self.mail.publish(&format!("Welcome, {name}!")).routing_key("outbox").await
//!     }
//! }
//! # fn main() {}
//! ```

mod builder;
mod consume;
mod delivery;
pub(crate) mod destination;
mod options;
mod publisher;
mod raw;
pub(crate) mod requeue;

pub use builder::Publishing;
pub use consume::Consume;
pub use publisher::{MessagePublisher, Publisher};
pub use raw::RawMessage;

pub(crate) use builder::publish_options;
pub(crate) use delivery::{Deliveries, OnError, takes_one_argument};
pub(crate) use destination::{Body, ConfiguredPublisher, Destination, publish};
pub(crate) use options::Options;
pub(crate) use raw::FromMessage;
