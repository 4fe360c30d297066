//! An AMQP 0-9-1 client on Tokio: publisher confirms, consumers that recover, topology, TLS.
//!
//! | type | purpose |
//! |---|---|
//! | [`Publisher`] | publishes over one connection per process, with confirms and retries |
//! | [`Consumers`] | consumes any number of queues over one connection, and recovers after a loss |
//! | [`Connection`], [`Channel`] | the protocol itself, on which both are built |
//! | [`Exchange`], [`Queue`], [`Declarations`] | topology |
//! | [`ConnectOptions`], [`Uri`], [`Tls`] | brokers, credentials, heartbeat, timeouts |
//!
//! ```no_run
//! use std::sync::Arc;
//! use nameko_amqp::{
//!     ConnectOptions, Consumers, Delivery, Exchange, Publish, Publisher, Queue, Retry,
//!     Subscription,
//! };
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
//! Both halves are programs in the folder `examples`.
//!
//! # Guarantees
//!
//! * No call hangs on a dead connection. If the connection is refused, reset, silent, half open,
//!   closed by the broker or broken by garbage, every pending call fails with an [`Error`] that
//!   names the broker, the user, the cause and a remedy. Calls do wait for a slow broker: one that
//!   blocks publishers for lack of memory, which is logged, or that cannot replicate a message to
//!   confirm it. Add a timeout to calls that must not wait.
//! * Acknowledging never blocks and never fails. On a closed connection it has no effect, since the
//!   broker has requeued the message.
//! * Input from the peer is never trusted. Frames, bodies and nesting are bounded. A protocol error
//!   ends the connection with a reason; a single unreadable message is rejected, so that its
//!   redelivery cannot end one connection after the other.
//! * Memory is bounded: publishing waits while more than a mebibyte is unsent.
//! * `unsafe` is forbidden.
//!
//! # Feature flags
//!
//! | feature | default | purpose |
//! |---|---|---|
//! | `tls` | yes | TLS with rustls; without it, TLS connections fail with [`Error::Tls`] |
//!
//! # Not included
//!
//! Transactions, `basic.recover`, `channel.flow` from the client, consumers without
//! acknowledgements, `nowait` requests.
//!
//! # Architecture
//!
//! `driver` is the task of a connection. It shares `ConnectionState` with all handles and owns a
//! `ChannelState` per channel; frames go through `frame`, `decode` and `encode`. There is no queue
//! between a caller and the socket: callers encode into one output buffer, and the answers to
//! everything that one read has brought leave in one write. No type of the codec, `amq-protocol`,
//! is part of the API.

mod backoff;
#[cfg(feature = "tls")]
mod certificate_files;
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
mod io_thread;
mod lazy;
mod message;
mod options;
mod outage;
mod peer;
mod properties;
mod publisher;
mod rescue;
mod retry;
mod socket;
mod sync;
mod table;
#[cfg(feature = "tls")]
mod tls;
mod topology;
mod unsent;
mod uri;
mod uri_parameters;
#[cfg(feature = "tls")]
mod x509_v1;

pub use backoff::Backoff;
pub use channel::{Channel, Confirm, QueueDeclared};
pub use connection::Connection;
pub use consumers::{Consumers, Observer, Subscription, SubscriptionId};
pub use declarations::Declarations;
pub use delivery::{Acker, ConsumerTag, Delivery, Sink};
pub use error::{Error, PublishError};
pub use io_thread::{
    IoThreadId, io_thread_id, reserve_io_time, run_on_io_thread, waits_for_connection,
};
pub use message::Publish;
pub use options::{ConnectOptions, Login, Tls, Verify};
pub use peer::Peer;
pub use properties::{Properties, Text};
pub use publisher::{PublishOptions, Publisher};
pub use rescue::{leave_io_thread, move_connections};
pub use retry::Retry;
pub use table::{Headers, Table, Value};
pub use topology::{Binding, Exchange, ExchangeKind, Queue};
pub use unsent::Unsent;
pub use uri::{Uri, sanitize};

/// The samples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
