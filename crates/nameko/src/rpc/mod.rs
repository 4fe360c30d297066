//! RPC: entrypoints and clients.
//!
//! A request is published to the topic exchange `nameko-rpc` with the routing key
//! `{service}.{method}`. The reply is published to the same exchange, routed to the caller's reply
//! queue, with the correlation id of the request.

mod call_result;
mod client;
mod cluster;
mod proxy;
mod replies;
pub(crate) mod reply_table;
mod server;
pub(crate) mod settlement;
pub(crate) mod typed;

pub use call_result::CallResult;
pub use cluster::{ClusterProxy, ClusterRpc};
pub use proxy::{RpcProxy, ServiceProxy};
pub use server::Rpc;
pub use typed::RpcClient;

pub(crate) use client::{Client, Options};
pub(crate) use proxy::Route;
pub(crate) use replies::Replies;
