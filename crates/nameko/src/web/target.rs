//! The request handler of a port, shared by its connections.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::{
    error_format::ErrorFormat, handler::DynHandler, layers::HttpService, router::Router,
    settings::Limits,
};

/// State shared by the connections of a port.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) limits: Limits,
    pub(super) phase: watch::Sender<PortPhase>,
}

/// The life of a port. Only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortPhase {
    Serving,
    /// The port is closed; each connection may send one more request.
    Draining,
    /// Each connection ends after the response to its current request.
    Closing,
}

impl Shared {
    /// Advances to a later phase.
    pub(super) fn advance(&self, to: PortPhase) {
        self.phase.send_if_modified(|phase| {
            let changes = *phase < to;
            *phase = (*phase).max(to);
            changes
        });
    }
}

/// The request handler of a port.
pub(super) enum Target {
    /// Dispatches by route.
    Routes(Routes),
    /// Passes every request to one handler.
    Embedded(Box<dyn DynHandler>),
}

/// The routes of a port with their layers and the format of errors without a route.
#[derive(Default)]
pub(super) struct Table {
    pub(super) router: Router,
    pub(super) stack: Option<HttpService>,
    pub(super) errors: Option<Arc<dyn ErrorFormat>>,
    /// Whether any route has a format of errors.
    pub(super) has_formats: bool,
}

/// The current table, replaced as containers join and leave.
pub(super) struct Routes(RwLock<Arc<Table>>);

impl Routes {
    pub(super) fn new(table: Table) -> Self {
        Self(RwLock::new(Arc::new(table)))
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn publish(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}
