//! Request handlers.

use std::future::Future;

use futures_util::future::BoxFuture;

use super::{raw::RawRequest, response::Response};

/// A request handler.
pub trait Handler: Send + Sync + 'static {
    /// Responds to a request. The future is dropped if the server is killed.
    fn handle(&self, request: RawRequest) -> impl Future<Output = Response> + Send;
}

/// An object-safe [`Handler`].
pub(super) trait DynHandler: Send + Sync {
    fn handle(&self, request: RawRequest) -> BoxFuture<'_, Response>;
}

impl<H: Handler> DynHandler for H {
    fn handle(&self, request: RawRequest) -> BoxFuture<'_, Response> {
        Box::pin(Handler::handle(self, request))
    }
}
