//! The request handler of a port, shared by its connections.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::{handler::DynHandler, router::Router, settings::Limits};

/// State shared by the connections of a port.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) limits: Limits,
    /// `true` once new requests are refused.
    pub(super) closing: watch::Sender<bool>,
}

/// The request handler of a port.
pub(super) enum Target {
    /// Dispatches by route.
    Routes(Routes),
    /// Passes every request to one handler.
    Embedded(Box<dyn DynHandler>),
}

/// The current routes, replaced as containers join and leave.
pub(super) struct Routes(RwLock<Arc<Router>>);

impl Routes {
    pub(super) fn new(router: Router) -> Self {
        Self(RwLock::new(Arc::new(router)))
    }

    pub(super) fn router(&self) -> Arc<Router> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn publish(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(router);
    }
}
