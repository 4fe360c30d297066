//! RPC: methods that other services call, and calls to other services.
//!
//! A request goes to the topic exchange `nameko-rpc` with the key `{service}.{method}`; the reply comes back through the
//! same exchange to a queue of the caller's own, and carries the request's correlation id.

mod client;
mod proxy;
mod replies;
pub(crate) mod reply_table;
mod server;
pub(crate) mod settlement;
pub(crate) mod typed;

pub use proxy::{RpcProxy, ServiceProxy};
pub use server::Rpc;
pub use typed::RpcClient;

pub(crate) use client::{Client, Options};
pub(crate) use proxy::Caller;
pub(crate) use replies::Replies;
