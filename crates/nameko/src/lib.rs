//! # Nameko
//!
//! Microservices over AMQP. A service is a plain struct: its methods are entrypoints (RPC, events,
//! messages, HTTP, WebSocket, timers), and its dependencies are injected. Services in Rust and in
//! Python have the same wire protocol and can share a cluster.
//!
//! ```no_run
//! use nameko::prelude::*;
//!
//! #[derive(Dependencies)]
//! struct HelloService;
//!
//! #[service("hello_service")]
//! impl HelloService {
//!     #[rpc]
//!     async fn hello(&self, name: String) -> Result<String> {
//!         Ok(format!("Hello, {name}!"))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     nameko::main(services![HelloService])
//! }
//! ```
//!
//! `cargo run -- run` runs it, `cargo run -- shell` calls it:
//!
//! ```text
//! >>> n.rpc.hello_service.hello(name='zq')
//! 'Hello, zq!'
//! ```
//!
//! If no broker is configured and none runs on this machine, `run` starts an embedded in-memory
//! broker. For production, use RabbitMQ.
//!
//! | You want | You write | See |
//! |---|---|---|
//! | Service | `#[service("name")] impl` | [`service`](macro@service), [`Service`] |
//! | RPC method | `#[rpc] async fn` | [`rpc`](macro@rpc) |
//! | Dependency injection | `#[dependency(PROVIDER)]` on a field | [`Dependencies`](macro@Dependencies), [`DependencyProvider`] |
//! | Call another service | `#[dependency(RpcProxy::new("name"))]` | [`RpcProxy`], [`ServiceProxy`] |
//! | Typed client with a mock for tests | `#[rpc_client("name")] trait` | [`rpc_client`](macro@rpc_client), [`RpcClient`] |
//! | Dispatch events | `#[dependency(EventDispatcher::new())]` | [`guide::events`], [`EventDispatcher`], [`Dispatcher`] |
//! | Handle events | `#[event_handler("service", "type")]` | [`EventHandler`], [`HandlerType`] |
//! | Publish messages to any exchange or queue | `#[dependency(Publisher::new(exchange))]` | [`guide::messaging`], [`Publisher`], [`MessagePublisher`] |
//! | Consume messages from any queue | `#[consume(Queue::new("name"))]` | [`Consume`], [`amqp::Queue`] |
//! | Receive undecoded messages | `async fn handle(&self, message: RawMessage)` | [`messaging::RawMessage`] |
//! | Dispatch events from any program | `StandaloneDispatcher::new(&config)` | [`StandaloneDispatcher`] |
//! | Call services from any program | `Cluster::connect` | [`Cluster`] |
//! | Context of the call: caller, context data | `#[dependency(CurrentWorker)]` | [`WorkerContext`] |
//! | HTTP endpoint | `#[http(GET, "/orders/{id}")] async fn` | [`web`], [`guide::http`] |
//! | WebSocket RPC and broadcasts to browsers | `#[websocket_rpc]`, `WebSocketHubProvider::new()` | [`websocket_rpc`](macro@websocket_rpc), [`web::WebSocketHub`] |
//! | Timer at a fixed interval | `#[timer(interval = 5)]` | [`timer`](macro@timer), [`Timer`] |
//! | Cron schedule, once in the fleet | `#[cron("0 3 * * *", once = "fleet")]` | [`cron`](macro@cron), [`Cron`] |
//! | Error that keeps its type between services | `#[derive(Exception)]`, `exceptions::register` | [`exceptions`], [`Exception`](macro@Exception) |
//! | Value of the context data | `#[dependency(Language)]`, `#[dependency(ContextData::new("key"))]` | [`ContextData`], [`UserId`], [`UserAgent`], [`AuthToken`] |
//! | Configuration, or a section of it as a type | `#[dependency(CurrentConfig)]`, `#[dependency(ConfigValue::of("key"))]` | [`CurrentConfig`], [`ConfigValue`] |
//! | Test: mocks, hooks, waiters, embedded broker | `testing::broker().await`, `entrypoint_hook(&container, "hello")` | [`testing`] |
//! | Custom provider or entrypoint | `impl DependencyProvider`, `#[entrypoint(EXPR)]` | [`guide::extensions`], [`Entrypoint`], [`SharedExtension`] |
//! | Run the services | `nameko::main(services![...])` | [`main`], [`Runner`], [`Container`] |
//! | YAML configuration | `--config FILE` | [`Config`] |
//! | Other formats than JSON | `serializer: msgpack` in the configuration, `RpcProxy::serializer` | [`serialization`] |
//! | AMQP client | `amqp::Publisher`, `amqp::Consumers` | [`amqp`] |

// Generated code says `::nameko`, in this crate's own tests and examples too.
#[allow(unused_extern_crates)]
extern crate self as nameko;

pub use nameko_amqp as amqp;
mod arguments;
pub mod cli;
pub mod config;
mod container;
mod context;
mod cron;
mod error;
pub mod events;
pub mod exceptions;
mod extension;
#[cfg(any(doc, doctest))]
pub mod guide;
#[doc(hidden)]
pub mod internal;
mod macros;
pub mod messaging;
mod panics;
pub mod prelude;
#[doc(hidden)]
pub mod private;
mod protocol;
mod queue_arguments;
mod queue_consumer;
mod redaction;
mod remote_error;
mod reply;
mod rpc;
mod runner;
pub mod serialization;
mod service;
mod standalone;
#[doc(hidden)]
pub mod supervisor;
mod sync;
mod tasks;
pub mod testing;
mod timer;
pub mod web;
mod worker;

pub use arguments::{Args, Argument, Arguments, Param};

pub use cli::main;
pub use config::Config;
pub use container::{
    Container, ContainerBuilder, MAX_WORKERS, MethodHandle, STOP_TIMEOUT, WeakContainer,
};
pub use context::{
    AuthToken, ConfigValue, ContextData, CurrentConfig, CurrentWorker, Language, UserAgent, UserId,
};
pub use cron::{Clock, Cron, SystemClock};
pub use error::{CustomError, Error, Raise, Result};
pub use events::{
    BroadcastIdentifier, Dispatcher, EventDispatcher, EventHandler, HandlerType,
    StandaloneDispatcher,
};
pub use exceptions::Exception;
pub use extension::{DependencyProvider, Entrypoint, SharedExtension};
pub use macros::{
    Dependencies, Exception, consume, cron, entrypoint, event_handler, http, rpc, rpc_client,
    service, timer, websocket_rpc,
};
pub use messaging::{Consume, MessagePublisher, Publisher};
pub use protocol::Fault;
pub use queue_consumer::QueueConsumer;
pub use redaction::{REDACTED, redact};
pub use remote_error::RemoteError;
pub use reply::{Outcome, Reply};
pub use rpc::{Rpc, RpcClient, RpcProxy, ServiceProxy};
pub use runner::{Runner, Services};
pub use service::{Bindings, Call, Dependencies, Entrypoints, Injector, Method, Provided, Service};
pub use standalone::Cluster;
pub use tasks::TaskHandle;
pub use timer::{Interval, Timer};
pub use worker::{WorkerContext, context_data};

/// Compiles the samples of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
