//! Tests of the crate as a user sees it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

// The broker of a test.
mod support;
// Services for tests.
mod services;
// A scripted AMQP peer.
mod peer;
// A TCP proxy that breaks connections, shared with the tests of nameko-amqp.
#[path = "../../../nameko-amqp/tests/it/proxy.rs"]
mod proxy;

// Child processes.
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
// Services with MessagePack and registered formats.
mod formats;

// WebSocket: requests, events, and clients that misbehave.
mod websocket;

// Timers.
mod timers;
// Cron lines, in one instance and in a fleet.
mod cron;

// Calls between services: results, errors, context.
mod rpc;
// The wire format.
mod wire;
// Typed clients.
mod clients;
// Errors that keep their type across services.
mod exceptions;
// Context data and configuration as dependencies.
mod context;
// Events: handler types and delivery.
mod events;
// Events that fail.
mod event_failures;
// Queues of events and requests: arguments and conflicts.
mod event_queues;
// Unreadable messages.
mod poison;
// Queues with arguments: priorities, limits, dead letters.
mod dead_letters;
// Publishers and consumers.
mod messaging;
// An HTTP client on the level of bytes.
mod http_client;
// HTTP: arguments, results, errors.
mod http;
// HTTP when clients are slow, wrong or hostile.
mod http_peers;
// Shared ports, stop and kill.
mod http_ports;
// Containers: start, stop, kill, workers, providers.
mod lifecycle;
// User-defined extensions.
mod extensions;
// Managed tasks.
mod managed;
// Failing starts and stops.
mod stops;
// Replaced dependencies, restricted entrypoints.
mod replaced;
// Testing helpers.
mod testing;
// Spans and logs of workers.
mod observability;
// Several services in one process.
mod runner;
// Failures of brokers, networks and methods.
mod reliability;

/// The path of the binary `nameko`.
const NAMEKO: &str = env!("CARGO_BIN_EXE_nameko");
