//! An embeddable AMQP 0-9-1 broker, in memory: for trying out, development and tests, and inside a single process.
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
//! **What it is for.** A test or a tutorial needs a broker and no installation; a single process wants queues inside. Any
//! AMQP 0-9-1 client can use it, and it answers as RabbitMQ does, wrong use included.
//!
//! **What it is not for.** Messages live in memory: "durable" and "persistent" are accepted and change nothing, and
//! everything is gone when the broker stops. There is no cluster, no TLS, no page to look at. Use RabbitMQ in production.
//!
//! # What works
//!
//! | | |
//! |---|---|
//! | connection | PLAIN and AMQPLAIN, virtual hosts, tune, heartbeats both ways, channels |
//! | exchanges | default, direct, fanout, topic, headers; bindings between exchanges; alternate exchange |
//! | queues | durable, exclusive, auto-delete, passive, server-named; `x-expires`, `x-message-ttl`, `x-max-length`, `x-max-length-bytes`, `x-overflow`, `x-max-priority`, `x-single-active-consumer` |
//! | quorum queues | accepted (`x-queue-type`), with what they allow and refuse, `x-delivery-limit` and `x-delivery-count`; one copy, in memory |
//! | messages | consume, get, ack, nack, reject, recover, prefetch per consumer and channel, `mandatory`, `expiration`, `priority`, `user_id`, `CC`, `BCC`, publisher confirms |
//! | dead letters | `x-dead-letter-exchange`, `x-dead-letter-routing-key`; the headers `x-death` and `x-first-death-*` as RabbitMQ 3.10 writes them; circles end |
//! | consumers | exclusive, `x-priority`, told when their queue goes; direct replies (`amq.rabbitmq.reply-to`) |
//!
//! With the feature `management` it serves, where `BrokerBuilder::management_port` gives it a port, the routes of
//! RabbitMQ's management API that tests and small tools use: virtual hosts and permissions, exchanges, queues, bindings, publish, get,
//! connections (list and close), channels, consumers, `overview`, `whoami`. Its figures are live. Left out are rates, memory, pages,
//! columns, policies, definitions, and permissions other than all.
//!
//! Wrong use gets RabbitMQ's codes and words: an argument of the wrong type, or another one than the queue was declared with
//! (406 PRECONDITION_FAILED, naming both values).
//!
//! # What is left out
//!
//! Transactions and streams, which are refused with 540 NOT_IMPLEMENTED; permissions within a virtual host, policies, flow
//! control by `connection.blocked`. `x-queue-mode` and what else says how RabbitMQ stores messages is
//! accepted, and changes nothing.
//!
//! # Map
//!
//! `broker` accepts sockets; `transport` is one task per socket; `connection`, `handshake` and `channel` are the protocol's state, free
//! of I/O; `methods` turns methods into operations on a `vhost`, which holds exchanges, queues and consumers behind one
//! lock; `send_buffer` is what goes back. Decisions are pure: `topic`, `exchange`, `queue` (with `ready_messages` and `round_robin`), `arguments`,
//! `declare_check`, `x_death`, `frame`, `depth_limit`. `management` is the API over HTTP, on the same virtual hosts.

mod arguments;
mod auth;
mod binding;
mod broker;
mod broker_state;
mod channel;
mod channel_consumers;
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
mod topic;
mod transport;
mod vhost;
mod x_death;

pub use broker::{Broker, BrokerError, BrokerStats, QueueStats};
pub use settings::BrokerBuilder;
