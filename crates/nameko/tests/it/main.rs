//! Tests of the crate as a user sees it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

// The broker a test runs on.
mod support;
// The services that tests run.
mod services;
// A peer that speaks AMQP by hand.
mod peer;
// A TCP proxy that breaks connections.
mod proxy;

// The AMQP client: declaring, publishing, consuming.
mod amqp_basics;
// The AMQP client when brokers and networks break.
mod amqp_failures;
// The AMQP client over TLS.
mod amqp_tls;
// The AMQP client against servers that misbehave.
mod amqp_peers;

// Programs that a test runs as a user would.
mod program;
// `nameko broker`.
mod cli_broker;
// `nameko call`.
mod cli_call;
// The configuration of commands, and `show-config`.
mod cli_config;
// The shell, with scripts and on a terminal.
mod cli_shell;

// Configuration files and keys.
mod config;
// JSON as Python writes it.
mod serialization;
// Bodies of messages in every format.
mod codec;
// Services that talk in MessagePack and in formats of their own.
mod formats;

// WebSocket: requests, events, and clients that misbehave.
mod websocket;

// Timers: when they tick.
mod timers;
// Cron lines, in one instance and in a fleet.
mod cron;

// Calls between services: results, errors, context.
mod rpc;
// What peers of all kinds put on the wire.
mod wire;
// Typed clients.
mod clients;
// Errors that keep their type between services.
mod exceptions;
// Context data and configuration as dependencies.
mod context;
// Events: who handles them, what waits for whom.
mod events;
// Events that fail.
mod event_failures;
// The queues of events and requests: arguments, brokers that hold them otherwise.
mod event_queues;
// Messages that nobody can read.
mod poison;
// Queues with arguments: priorities, limits, dead letters.
mod dead_letters;
// Messages on queues of a service's own.
mod messaging;
// A client of HTTP that tests see the bytes of.
mod http_client;
// HTTP: arguments, results, errors.
mod http;
// HTTP when clients are slow, wrong or hostile.
mod http_peers;
// Ports shared, taken and closed; stop and kill.
mod http_ports;
// Containers: start, stop, kill, workers, providers.
mod lifecycle;
// Extensions by users.
mod extensions;
// Managed tasks.
mod managed;
// Stops that do not go well.
mod stops;
// Replaced dependencies, restricted entrypoints.
mod replaced;
// Testing helpers.
mod testing;
// Spans and logs of workers.
mod observability;
// Several services in one process.
mod runner;
// Services when brokers, networks and methods break.
mod reliability;

/// The path of the binary `nameko`.
const NAMEKO: &str = env!("CARGO_BIN_EXE_nameko");
