//! What users of the broker rely on, through real clients and through bare sockets.
//!
//! The conformance modules run on the embedded broker, and once more on RabbitMQ when `NAMEKO_TEST_AMQP_URI` says where one
//! is, such as `amqp://guest:guest@127.0.0.1:5672`: both have to behave the same.

// The helpers are test code too, which the lints only see in test functions.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

/// A broker to test, and short ways to say what a test does.
mod support;

/// A peer that says what it likes, frame by frame.
mod peer;

/// Conformance: acknowledging, rejecting, recovering.
mod acknowledgement;
/// Conformance: what becomes of messages that nobody took.
mod dead_letters;
/// Conformance: consumers, order, fairness, prefetch.
mod delivery;
/// Conformance: replies without a queue.
mod direct_reply;
/// Conformance: exchanges and what they route where.
mod exchanges;
/// Conformance: messages and queues that expire.
mod expiry;
/// Conformance: login, virtual hosts, and what was agreed on.
mod handshake;
/// Conformance: the management API.
#[cfg(feature = "management")]
mod management;
/// Conformance: priorities of messages and of consumers.
mod priorities;
/// Conformance: confirms, returns, large bodies.
mod publishing;
/// Conformance: queues, how they are declared, how they go.
mod queues;
/// Conformance: quorum queues.
mod quorum;
/// Conformance: the code and text of every refusal.
mod refusals;
/// Conformance: queues that have one active consumer at a time.
mod single_active;

/// Peers that send garbage, nothing, too much, or do not read.
mod hostile;
/// The broker as a value: start, stop, restart, counts.
mod lifecycle;
