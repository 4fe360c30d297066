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
#[cfg(feature = "cli")]
mod program;
// `nameko broker`.
#[cfg(feature = "cli")]
mod cli_broker;
// `nameko call`.
#[cfg(feature = "cli")]
mod cli_call;
// The configuration of commands, and `show-config`.
#[cfg(feature = "cli")]
mod cli_config;
// The shell, with scripts and on a terminal.
#[cfg(feature = "cli")]
mod cli_shell;

// Configuration files and keys.
#[cfg(feature = "yaml")]
mod config;
// JSON as Python writes it.
mod serialization;
// Bodies of messages in every format.
#[cfg(all(feature = "compression", feature = "msgpack"))]
mod codec;
// Services with MessagePack and registered formats.
#[cfg(all(feature = "compression", feature = "msgpack"))]
mod formats;

// WebSocket: requests, events, and clients that misbehave.
#[cfg(feature = "websocket")]
mod websocket;

// Timers.
mod timers;
// Cron lines, in one instance and in a fleet.
#[cfg(feature = "cron")]
mod cron;

// Calls between services: results, errors, context.
mod rpc;
// Methods on the I/O thread.
mod io_thread;
// The wire format.
mod wire;
// The arguments of calls.
mod call_arguments;
// Typed clients.
mod clients;
// Values, nested structs and clusters as dependencies.
mod dependencies;
// Errors that keep their type across services.
mod exceptions;
// The causes of errors in logs.
#[cfg(feature = "cli")]
mod error_chains;
// Context data and configuration as dependencies.
#[cfg(feature = "yaml")]
mod context;
// Events: handler types and delivery.
mod events;
// Events that fail.
mod event_failures;
// Queues of events and requests: arguments and conflicts.
mod event_queues;
// Unreadable messages.
#[cfg(all(feature = "compression", feature = "msgpack"))]
mod poison;
// Queues with arguments: priorities, limits, dead letters.
mod dead_letters;
// Publishers and consumers.
#[cfg(all(feature = "compression", feature = "msgpack"))]
mod messaging;
// An HTTP client on the level of bytes.
#[cfg(feature = "http")]
mod http_client;
// HTTP: arguments, results, errors.
#[cfg(feature = "http")]
mod http;
// HTTP when clients are slow, wrong or hostile.
#[cfg(feature = "http")]
mod http_peers;
// `tower` layers, and the format of errors.
#[cfg(feature = "http")]
mod http_layers;
// HTTP arguments that the worker extracts.
#[cfg(feature = "http")]
mod http_extract;
// Bodies that are streamed, multipart ones included.
#[cfg(feature = "multipart")]
mod http_uploads;
// Shared ports, stop and kill.
#[cfg(feature = "http")]
mod http_ports;
// Containers: start, stop, kill, workers, providers.
mod lifecycle;
// The hooks of a worker: order, failures, teardown.
#[cfg(all(feature = "cron", feature = "websocket"))]
mod worker_hooks;
// Layers around workers.
mod layers;
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
#[cfg(all(feature = "cli", feature = "http"))]
mod observability;
// Several services in one process.
mod runner;
// Failures of brokers, networks and methods.
mod reliability;

/// The path of the binary `nameko`.
#[cfg(feature = "cli")]
const NAMEKO: &str = env!("CARGO_BIN_EXE_nameko");
