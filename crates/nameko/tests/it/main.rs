//! Tests of the crate as a user sees it.

// The broker a test runs on.
mod support;
// A TCP proxy that breaks connections.
mod proxy;

// The AMQP client: declaring, publishing, consuming.
mod amqp_basics;

// Configuration files and keys.
mod config;
// JSON as Python writes it.
mod serialization;
