//! The AMQP 0-9-1 client.

mod backoff;
mod channel;
mod channel_state;
mod confirms;
mod connection;
mod consumers;
mod content;
mod decode;
mod delivery;
mod driver;
mod encode;
mod error;
mod frame;
mod handshake;
mod lazy;
mod options;
mod properties;
mod publisher;
mod shared;
mod table;
mod tls;
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
