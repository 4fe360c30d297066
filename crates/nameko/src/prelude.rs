//! Common imports of files with services: `use nameko::prelude::*;`.

pub use std::process::ExitCode;

pub use crate::{
    Cluster, Config, Container, CurrentWorker, Dependencies, DependencyProvider, Dispatcher, Error,
    EventDispatcher, MessagePublisher, Publisher, Result, RpcProxy, Service, ServiceProxy,
    WorkerContext, consume, cron, entrypoint, event_handler, http, rpc, service, services, timer,
    websocket_rpc,
};

pub use crate::amqp::{Exchange, Queue};
pub use crate::messaging::RawMessage;
pub use crate::{
    AuthToken, ConfigValue, ContextData, CurrentConfig, Exception, Language, UserAgent, UserId,
    rpc_client,
};
