//! The dependency provider of the hub.

use super::{hub::WebSocketHub, server::WebSocketServer};
use crate::{
    container::Container, error::Result, extension::DependencyProvider, worker::WorkerContext,
};

/// Injects the [`WebSocketHub`] of the container.
///
/// ```
/// use nameko::{prelude::*, web::{WebSocketHub, WebSocketHubProvider}};
///
/// #[derive(Dependencies)]
/// struct Chat {
///     #[dependency(WebSocketHubProvider::new())]
///     hub: WebSocketHub,
/// }
///
/// #[service("chat")]
/// impl Chat {
///     #[websocket_rpc]
///     async fn join(&self, socket_id: String, room: String) -> Result<Vec<String>> {
///         self.hub.subscribe(&socket_id, &room)?;
///         self.hub.broadcast(&room, "joined", &socket_id)?;
///         Ok(self.hub.get_subscriptions(&socket_id))
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct WebSocketHubProvider {
    hub: std::sync::OnceLock<WebSocketHub>,
}

impl WebSocketHubProvider {
    /// Creates the provider.
    pub fn new() -> Self {
        Self::default()
    }
}

impl DependencyProvider for WebSocketHubProvider {
    type Dependency = WebSocketHub;

    async fn setup(&self, container: &Container) -> Result<()> {
        let _ = self.hub.set(WebSocketServer::of(container)?.hub());
        Ok(())
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<WebSocketHub> {
        Ok(self.hub.get().cloned().unwrap_or_default())
    }
}
