//! A service without its type, as the container holds it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{method::MethodHandle, providers::BoundProvider};
use crate::{arguments::Arguments, error::Result, reply::Outcome, worker::WorkerContext};

/// A worker ready to run: injection, `worker_setup`, the method. The outer error is a broken provider's.
pub(super) type Work = Box<
    dyn FnOnce(WorkerContext, Arc<[BoundProvider]>) -> BoxFuture<'static, Result<Outcome>> + Send,
>;

/// What a container asks of its service. Methods are numbered as the entrypoints that run them.
pub(super) trait ServiceDispatch: Send + Sync {
    fn methods(&self) -> Vec<MethodHandle>;
    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work>;
}
