//! An embeddable, in-memory AMQP 0-9-1 broker for tests and development.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), nameko_broker::BrokerError> {
//! use nameko_broker::Broker;
//!
//! let broker = Broker::start("127.0.0.1:0").await?;
//! println!("{}", broker.uri()); // amqp://guest:guest@127.0.0.1:41231
//! broker.stop().await;
//! # Ok(()) }
//! ```
//!
//! Any AMQP 0-9-1 client can connect. The broker follows RabbitMQ 4.0 in everything that a client
//! can observe, including the codes and texts of errors; its integration tests run on both.
//!
//! Messages are held in memory and lost when the broker stops: durable queues and persistent
//! messages are accepted, but not stored. There is no clustering and no management UI. Use RabbitMQ
//! in production.
//!
//! # Supported
//!
//! | area | features |
//! |---|---|
//! | connections | PLAIN and AMQPLAIN, virtual hosts, tuning, heartbeats, channels |
//! | TLS | a port of its own, client certificates, EXTERNAL; with the feature `tls` |
//! | exchanges | default, direct, fanout, topic, headers; exchange bindings; alternate exchanges |
//! | queues | durable, exclusive, auto-delete, passive, server-named |
//! | queue arguments | `x-expires`, `x-message-ttl`, `x-max-priority`, `x-single-active-consumer` |
//! | queue limits | `x-max-length`, `x-max-length-bytes`, `x-overflow` |
//! | quorum queues | `x-queue-type`, `x-delivery-limit`, `x-delivery-count`; a single replica |
//! | consuming | consume, get, ack, nack, reject, recover; prefetch per consumer and per channel |
//! | consumers | exclusive, `x-priority`, cancel notification, `amq.rabbitmq.reply-to` |
//! | publishing | confirms, `mandatory`, `expiration`, `priority`, `user_id`, `CC`, `BCC` |
//! | transactions | `tx.select`, `tx.commit` and `tx.rollback` over publishes and acknowledgements |
//! | dead letters | `x-dead-letter-exchange`, `x-dead-letter-routing-key`, `x-death`, cycles |
//!
//! # Not supported
//!
//! * Streams: refused with 540 NOT_IMPLEMENTED.
//! * Permissions within a virtual host, policies, and flow control by `connection.blocked`.
//! * Storage options such as `x-queue-mode`: accepted without effect.
//!
//! # Differences from RabbitMQ 3
//!
//! As in RabbitMQ 4:
//!
//! * Bodies are limited to 16 MiB by default ([`BrokerBuilder::max_message_size`]); to 128 MiB
//!   before.
//! * Quorum queues without `x-delivery-limit` have a limit of 20; -1 is unlimited. Below a limit,
//!   returned messages go to the head of the queue, without one to its tail.
//! * `x-death` lists the latest death first, there are headers `x-last-death-*`, and a message that
//!   a client publishes begins a new history, even with these headers. To count retries, use a
//!   header of your own.
//! * A queue declared without `x-queue-type` has the type `classic` among its arguments.
//! * A headers exchange never matches an integer with a float.
//!
//! # Cargo features
//!
//! None is enabled by default.
//!
//! | feature | contents |
//! |---|---|
//! | `management` | a subset of RabbitMQ's management API, on `BrokerBuilder::management_port` |
//! | `tls` | a TLS port, with rustls, on `BrokerBuilder::tls` |
//! | `testing` | module `testing`: one broker per test, embedded or a virtual host on RabbitMQ |
//! | `fuzzing` | module `fuzzing`: the protocol state machine without sockets |
//!
//! The management API lists, creates and deletes virtual hosts, exchanges, queues and bindings,
//! publishes and gets messages, lists and closes connections, and lists channels and consumers.
//! Statistics over time, pagination, policies and definitions are left out.
//!
//! # Code map
//!
//! * `broker` runs an `acceptor` per listener, and `transport` serves each client in one task.
//!   `connection`, `handshake` and `channel` hold the protocol state without I/O; `methods`
//!   executes a channel's methods.
//! * `vhost` holds exchanges, queues, consumers and open transactions behind one lock. Output goes
//!   to the `send_buffer` of each connection. `timers` expires messages and queues.
//! * Pure logic: `topic`, `exchange`, `queue` (with `ready_messages` and `round_robin`),
//!   `arguments`, `declare_check`, `x_death`, `frame`, `depth_limit`.
//! * `management` serves the HTTP API on the same virtual hosts.
//! * `tls` reads the settings of the TLS port, `tls_acceptor` performs its handshakes,
//!   `client_certificate` verifies clients. `certificate_files` and `x509_v1` are modules of
//!   `nameko-amqp`, linked.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod acceptor;
mod arguments;
mod auth;
mod binding;
mod broker;
mod broker_state;
#[cfg(feature = "tls")]
mod certificate_files;
mod channel;
mod channel_consumers;
#[cfg(feature = "tls")]
mod client_certificate;
mod connection;
mod connection_info;
mod consumer;
mod dead_letter;
mod declare_check;
mod depth_limit;
mod direct_reply;
mod error;
mod exchange;
mod field_values;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod headers;
mod ids;
mod listeners;
#[cfg(feature = "management")]
mod management;
mod message;
mod methods;
mod name;
mod queue;
mod ready_messages;
mod round_robin;
mod send_buffer;
mod settings;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod timers;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_acceptor;
mod topic;
mod transaction;
mod transport;
mod vhost;
#[cfg(feature = "tls")]
mod x509_v1;
mod x_death;

pub use broker::{Broker, BrokerError, BrokerStats, QueueStats};
pub use listeners::resolve;
pub use settings::BrokerBuilder;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// Runs the code of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
