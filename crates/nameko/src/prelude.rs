//! What a file with a service needs: `use nameko::prelude::*;`.

pub use std::process::ExitCode;

pub use crate::{
    Cluster, Config, Container, CurrentWorker, Dependencies, DependencyProvider, Error, Result,
    RpcProxy, Service, ServiceProxy, WorkerContext, rpc, service, services,
};
