//! Type-erased access to a service.

use futures_util::future::BoxFuture;

use super::{method::MethodHandle, worker::Worker};
use crate::{arguments::Arguments, error::Result, reply::Outcome};

/// A prepared worker: runs injection, `worker_setup` and the method. The outer error comes from a
/// failed provider.
pub(super) type Work =
    Box<dyn for<'a> FnOnce(&'a mut Worker<'_>) -> BoxFuture<'a, Result<Outcome>> + Send>;

/// Type-erased dispatch to the methods of a service. The index of a method is the index of its
/// entrypoint.
pub(super) trait ServiceDispatch: Send + Sync {
    fn methods(&self) -> Vec<MethodHandle>;
    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work>;
}
