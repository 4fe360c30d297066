//! Handlers of messages without Nameko: acknowledge each message after a report.

pub(crate) mod amqprs;
pub(crate) mod bare_loop;
pub(crate) mod client;
pub(crate) mod lapin;

use clap::Args;

/// The routing key of the handled events.
pub(crate) const EVENT: &str = "happened";

/// The queues to consume.
#[derive(Args)]
pub(crate) struct Queues {
    /// Broker and virtual host: amqp://user:password@host:port/%2F
    pub(crate) uri: String,
    /// Topic exchange of the events
    pub(crate) exchange: String,
    /// Names of the queues
    #[arg(required = true)]
    pub(crate) queues: Vec<String>,
}
