//! Tests of the broker, with real clients and with raw sockets.
//!
//! The conformance modules run on the embedded broker and, if `NAMEKO_TEST_AMQP_URI` is set (such
//! as `amqp://guest:guest@127.0.0.1:5672`), a second time on that RabbitMQ. Both must behave the
//! same if they are of the same version; where RabbitMQ 3 behaves differently, tests assert both.

// Helpers are test code too, but the lints exempt test functions only.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

/// The broker under test and shorthands for common operations.
mod support;

/// A raw AMQP client.
mod peer;

/// Conformance: ack, reject, nack and recover.
mod acknowledgement;
/// Conformance: dead letters.
mod dead_letters;
/// Conformance: consumers, message order, fairness, prefetch.
mod delivery;
/// Conformance: direct replies.
mod direct_reply;
/// Conformance: exchanges, bindings and routing.
mod exchanges;
/// Conformance: expiry of messages and queues.
mod expiry;
/// Conformance: login, virtual hosts, negotiated limits, heartbeats.
mod handshake;
/// Conformance: the management API.
#[cfg(feature = "management")]
mod management;
/// Conformance: message and consumer priorities.
mod priorities;
/// Conformance: confirms, returns, large bodies.
mod publishing;
/// Conformance: declaration, limits and deletion of queues.
mod queues;
/// Conformance: quorum queues.
mod quorum;
/// Conformance: codes and texts of errors.
mod refusals;
/// Conformance: single active consumers.
mod single_active;
/// Conformance: transactions.
mod transactions;

/// Robustness: malformed input, slow clients, amplification.
mod hostile;
/// `Broker` as a value: start, stop, restart, statistics.
mod lifecycle;
/// The TLS port: certificates, logins, refusals, logs.
#[cfg(feature = "tls")]
mod tls;
