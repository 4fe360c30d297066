//! The AMQP 0-9-1 client: connections, channels, consumers that are kept alive, a publisher for the whole process.
//!
//! Most of a service needs only two types. [`Consumers`] holds everything that a container consumes, over one connection and
//! one channel, and makes it all again whenever the connection is lost. [`Publisher`] sends everything that a process
//! publishes to a broker, over one connection, and waits for the broker's confirms. [`Connection`] and [`Channel`] are what
//! both are made of, for whoever wants to do more by hand.
//!
//! ```no_run
//! use std::sync::Arc;
//! use nameko_amqp::{ConnectOptions, Consumers, Delivery, Exchange, Publish, Publisher, Queue, Retry, Subscription};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ConnectOptions::from_uri("amqp://guest:guest@localhost")?;
//! let consumers = Consumers::new(options.clone(), Arc::new(()));
//! consumers.add(Subscription {
//!     queue: Queue::new("greetings").bind(Exchange::topic("news"), "hello.*"),
//!     prefetch: Some(10),
//!     sink: Arc::new(|delivery: Delivery| {
//!         println!("{:?}", delivery.body);
//!         delivery.acker.ack();
//!     }),
//!     on_recovered: None,
//! });
//! consumers.start().await?;
//!
//! let message = Publish {
//!     exchange: "news".into(),
//!     routing_key: "hello.world".into(),
//!     body: "good morning".into(),
//!     ..Publish::default()
//! };
//! Publisher::shared(&options).publish(message, Some(Retry::default())).await?;
//! # Ok(()) }
//! ```
//!
//! # What to count on
//!
//! * Nothing waits for ever on a connection that is gone. Refused, reset, silent, half open, garbage, closed by the broker:
//!   all that waits resolves with an [`Error`] that says with whom, as whom, what happened and what to do. Only a broker that
//!   is alive and slow is waited for: one that is short of memory takes no messages (it says so, and that is logged), and
//!   one that cannot replicate a message does not confirm it. Callers who cannot wait set a time limit of their own.
//! * Acknowledging never waits and never fails. On a connection that is gone it does nothing: the broker has put the message
//!   back already.
//! * What a peer sends is never trusted. Frames, bodies and nesting are bounded, a protocol error ends the connection with a
//!   reason, and a single message that cannot be read is rejected, so that it cannot end one connection after the other.
//! * Memory is bounded: publishing waits while more than a mebibyte is unsent.
//!
//! # Why a client of our own
//!
//! It is small, because Nameko needs little of AMQP and the codec is `amq-protocol`'s. For that it spends a fraction of the
//! CPU per message that general clients spend, since it writes frames straight into one buffer, answers all that one read
//! brought with one write and knows no queue between socket and sink; and it can promise what is listed above, which the
//! clients that were tried do not (a frame for an unknown channel panics one, publishes on a lost connection vanish in
//! another, a 404 blocks the next publish in the one that Nameko used before).
//!
//! # Inside
//!
//! `driver` runs a connection in one task; `shared` is what it shares with all handles, `channel_state` that of a channel.
//! `frame`, `decode` and `encode` are the wire; no type of the codec is in a public signature. Deliberately absent:
//! transactions, `basic.recover`, `channel.flow` from our side, consuming without acknowledgements, server-side `nowait`.

mod backoff;
mod channel;
mod channel_registry;
mod channel_state;
mod channel_writer;
#[cfg(test)]
mod codec_tests;
mod confirms;
mod connection;
mod connection_handle;
mod connection_state;
mod consumers;
mod content;
mod declarations;
mod decode;
mod delivery;
mod driver;
mod encode;
mod error;
mod frame;
mod handshake;
mod lazy;
mod message;
mod options;
mod peer;
mod properties;
mod publisher;
mod retry;
mod sync;
mod table;
mod tls;
mod topology;
mod unsent;
mod uri;

pub use backoff::Backoff;
pub use channel::{Channel, Confirm, QueueDeclared};
pub use connection::Connection;
pub use consumers::{Consumers, Observer, Subscription, SubscriptionId};
pub use declarations::Declarations;
pub use delivery::{Acker, ConsumerTag, Delivery, Sink};
pub use error::{Error, PublishError};
pub use message::Publish;
pub use options::{ConnectOptions, Login, Tls, Verify};
pub use peer::Peer;
pub use properties::{Properties, Text};
pub use publisher::{PublishOptions, Publisher};
pub use retry::Retry;
pub use table::{Headers, Table, Value};
pub use topology::{Binding, Exchange, ExchangeKind, Queue};
pub use unsent::Unsent;
pub use uri::{Uri, sanitize};
