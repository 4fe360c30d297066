//! The AMQP 0-9-1 client.

mod channel;
mod connection;
mod consumers;
mod delivery;
mod error;
mod options;
mod properties;
mod publisher;
mod table;
mod topology;
mod uri;

pub use channel::{Channel, Confirm, QueueDeclared};
pub use connection::Connection;
pub use consumers::{Consumers, Observer, Sink, Subscription, SubscriptionId};
pub use delivery::{Acker, ConsumerTag, Delivery};
pub use error::{Error, Peer, PublishError};
pub use options::{ConnectOptions, Login, Tls, Verify};
pub use properties::{Properties, Text};
pub use publisher::{Publish, Publisher, Retry};
pub use table::{Headers, Table, Value};
pub use topology::{Binding, Exchange, ExchangeKind, Queue};
pub use uri::{Uri, sanitize};
