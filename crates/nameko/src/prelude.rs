//! Common imports of files with services: `use nameko::prelude::*;`.

pub use std::process::ExitCode;

pub use crate::amqp::{Exchange, Queue};
pub use crate::messaging::RawMessage;
pub use crate::{
    AuthToken, Cluster, ClusterProxy, ClusterRpc, Config, ConfigValue, Container, ContextData,
    CurrentConfig, CurrentWorker, Dependencies, DependencyProvider, Dispatcher, Error,
    EventDispatcher, Exception, Language, MessagePublisher, Provide, Publisher, Result, RpcProxy,
    Service, ServiceProxy, Shared, UserAgent, UserId, WorkerContext, services,
};
#[cfg(feature = "macros")]
pub use crate::{
    consume, cron, entrypoint, event_handler, http, rpc, rpc_client, service, timer, websocket_rpc,
};
