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
//! # Overview
//!
//! | task | code | documentation |
//! |---|---|---|
//! | Define a service | `#[service("name")] impl` | [`service`](macro@service), [`Service`] |
//! | RPC method | `#[rpc] async fn` | [`rpc`](macro@rpc) |
//! | Inject a dependency | `#[dependency(PROVIDER)]` | [`Dependencies`](macro@Dependencies), [`DependencyProvider`] |
//! | Call another service | `#[dependency(RpcProxy::new("name"))]` | [`RpcProxy`], [`ServiceProxy`] |
//! | Call services by names known at run time | `#[dependency(ClusterRpc::new())]` | [`ClusterRpc`], [`ClusterProxy`] |
//! | Inject a value, or a pool shared by services | `#[dependency(Provide(value))]`, `Shared::new(function)` | [`Provide`](struct@Provide), [`Shared`] |
//! | Typed client, with a mock | `#[rpc_client("name")] trait` | [`rpc_client`](macro@rpc_client), [`RpcClient`] |
//! | Dispatch events | `#[dependency(EventDispatcher::new())]` | [`guide::events`], [`EventDispatcher`] |
//! | Handle events | `#[event_handler("service", "type")]` | [`EventHandler`], [`HandlerType`] |
//! | Publish messages | `#[dependency(Publisher::new(exchange))]` | [`guide::messaging`], [`Publisher`] |
//! | Consume a queue | `#[consume(Queue::new("name"))]` | [`Consume`], [`amqp::Queue`] |
//! | Undecoded messages | `async fn f(&self, message: RawMessage)` | [`messaging::RawMessage`] |
//! | Events from any program | `StandaloneDispatcher::new(&config)` | [`StandaloneDispatcher`] |
//! | Calls from any program | `Cluster::connect(&config)` | [`Cluster`] |
//! | Call ids and context | `#[dependency(CurrentWorker)]` | [`WorkerContext`] |
//! | HTTP endpoint | `#[http(GET, "/orders/{id}")]` | [`web`], [`guide::http`] |
//! | WebSocket | `#[websocket_rpc]`, `WebSocketHubProvider::new()` | [`web::WebSocketHub`] |
//! | Fixed interval | `#[timer(interval = 5)]` | [`Timer`] |
//! | Cron, once per fleet | `#[cron("0 3 * * *", once = "fleet")]` | [`Cron`] |
//! | Typed remote errors | `#[derive(Exception)]`, `exceptions::register` | [`exceptions`] |
//! | Context data | `#[dependency(ContextData::new("key"))]` | [`ContextData`], [`Language`], [`UserId`] |
//! | Configuration | `#[dependency(ConfigValue::of("key"))]` | [`ConfigValue`], [`CurrentConfig`] |
//! | Tests | `testing::broker().await`, `entrypoint_hook(..)` | [`testing`] |
//! | Custom extensions | `impl DependencyProvider`, `#[entrypoint(EXPR)]` | [`guide::extensions`] |
//! | State per worker | `impl StatefulProvider` | [`StatefulProvider`] |
//! | Code around all workers | `impl WorkerLayer`, `layers = [...]` | [`WorkerLayer`] |
//! | Run services | `nameko::main(services![...])` | [`main`], [`Runner`], [`Container`] |
//! | YAML configuration | `--config FILE`, `Config::from_file` | [`Config`] |
//! | MessagePack, custom formats | `serializer: msgpack` | [`serialization`] |
//! | AMQP client | | [`amqp`] |
//!
//! # Features
//!
//! `cargo add nameko` gives what the example above needs. With `default-features = false`, services
//! are written against the public traits (see [`Service`]) and speak AMQP and JSON; so do clients.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `macros` | yes | `#[service]`, `#[rpc]`, `#[derive(Dependencies)]` and the other attributes |
//! | `cli` | yes | [`main`] with `run`, `shell`, `call`, `show-config`; the binary `nameko`; enables `yaml` |
//! | `embedded-broker` | yes | the in-memory broker that `run` and `nameko broker` start |
//! | `http` | | [`web`] and `#[http]` |
//! | `websocket` | | `#[websocket_rpc]` and [`web::WebSocketHub`]; enables `http` |
//! | `cron` | | [`Cron`] and `#[cron]` |
//! | `msgpack` | | the serializer `msgpack` |
//! | `compression` | | bodies compressed with gzip or bzip2 |
//! | `tls` | | `amqps://` and `AMQP_SSL`; the TLS port of the embedded broker |
//! | `anyhow` | | methods that return `anyhow::Result`; `From<anyhow::Error>` for [`Error`] |
//! | `yaml` | | `Config::from_yaml` and `Config::from_file` |
//! | `testing` | | [`testing`]; enables `embedded-broker` |
//!
//! A service or a configuration that needs a disabled feature fails with an error that names it.

#![cfg_attr(docsrs, feature(doc_cfg))]

// Generated code refers to `::nameko`, also in the tests of this crate.
#[allow(unused_extern_crates)]
extern crate self as nameko;

pub use nameko_amqp as amqp;
mod arguments;
mod caller;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod container;
mod context;
#[cfg(feature = "cron")]
mod cron;
mod error;
mod error_chain;
pub mod events;
mod exception_argument;
pub mod exceptions;
mod extension;
mod extractor;
#[cfg(all(
    any(doc, doctest),
    feature = "anyhow",
    feature = "cli",
    feature = "compression",
    feature = "cron",
    feature = "macros",
    feature = "msgpack",
    feature = "multipart",
    feature = "testing",
    feature = "websocket",
))]
pub mod guide;
#[doc(hidden)]
pub mod internal;
mod layer;
#[cfg(feature = "macros")]
mod macros;
pub mod messaging;
mod pace;
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
mod stateful_provider;
#[doc(hidden)]
pub mod supervisor;
mod sync;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
mod values;
mod watchdog;
#[cfg(feature = "http")]
pub mod web;
mod worker;
mod worker_hooks;

pub use arguments::{Args, Argument, Arguments, Param};

#[cfg(feature = "cli")]
pub use cli::{main, main_async};
pub use config::Config;
pub use container::{
    Container, ContainerBuilder, MAX_WORKERS, MethodHandle, STOP_TIMEOUT, WeakContainer,
};
pub use context::{
    AuthToken, ConfigValue, ContextData, CurrentConfig, CurrentWorker, Language, UserAgent, UserId,
};
#[cfg(feature = "cron")]
pub use cron::{Clock, Cron, SystemClock};
pub use error::{CustomError, Error, Raise, Result};
pub use events::{
    BroadcastIdentifier, Dispatcher, EventDispatcher, EventHandler, HandlerType,
    StandaloneDispatcher,
};
pub use exceptions::Exception;
pub use extension::{DependencyProvider, Entrypoint, SharedExtension};
pub use layer::{Layers, Next, WorkerCall, WorkerLayer};
#[cfg(feature = "macros")]
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
pub use rpc::{CallResult, ClusterProxy, ClusterRpc, Rpc, RpcClient, RpcProxy, ServiceProxy};
pub use runner::{Runner, RunnerBuilder, Services, serve};
pub use service::{Bindings, Call, Dependencies, Entrypoints, Injector, Method, Provided, Service};
pub use standalone::Cluster;
pub use stateful_provider::{Provider, StatefulProvider, WorkerEnd};
pub use tasks::TaskHandle;
pub use timer::{Interval, Timer};
pub use values::{Provide, Shared};
pub use worker::{WorkerContext, context_data};

/// Compiles the samples of the README as doc tests.
#[cfg(all(doctest, feature = "cli", feature = "macros"))]
#[doc = include_str!("../README.md")]
struct Readme;
