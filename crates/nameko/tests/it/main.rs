//! Tests of the crate as a user sees it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

// The broker a test runs on.
mod support;
// A TCP proxy that breaks connections.
mod proxy;

// The AMQP client: declaring, publishing, consuming.
mod amqp_basics;
// The AMQP client when brokers and networks break.
mod amqp_failures;
// The AMQP client against servers that misbehave.
mod amqp_peers;

// Configuration files and keys.
mod config;
// JSON as Python writes it.
mod serialization;
