//! The WebSocket part of a container's web server: handshake at `/ws`, methods, sockets.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, Weak},
};

use tokio::sync::{OnceCell, watch};
use uuid::Uuid;

use super::{
    super::{
        error::Error,
        handler::Handler,
        raw::{RawRequest, Upgrade},
        request::Request,
        response::Response,
        server::WebServer,
    },
    admission,
    handshake::{Handshake, switch, switched},
    hub::WebSocketHub,
    origins::Origins,
    outbox::Outbox,
    settings::Settings,
    shared::{Occasion, Shared},
    socket::{self, Opening},
    transport::CLOSE_TIMEOUT,
};
use crate::{
    amqp::Table,
    container::{Container, MethodHandle},
    error::Result,
    extension::SharedExtension,
};

/// Path of the handshake. Source: Nameko 2.14.1.
const PATH: &str = "/ws";

/// The sockets of a container, shared by its WebSocket entrypoints and hubs.
pub(super) struct WebSocketServer {
    shared: Arc<Shared>,
    web: Arc<WebServer>,
    /// Set by the first entrypoint that stops.
    closed: OnceCell<()>,
}

impl WebSocketServer {
    /// Returns the WebSocket server of `container`; for `setup`.
    pub(super) fn of(container: &Container) -> Result<Arc<Self>> {
        container.shared(|container| {
            let web = WebServer::of(container)?;
            let shared = Arc::new(Shared {
                container: container.downgrade(),
                hub: WebSocketHub::default(),
                settings: Settings::from_config(container.config())?,
                origins: Origins::from_config(container.config())?,
                methods: RwLock::default(),
                stopping: watch::Sender::new(false),
            });
            web.route("GET", PATH, "websocket", Endpoint(Arc::downgrade(&shared)))?;
            Ok(Self {
                shared,
                web,
                closed: OnceCell::new(),
            })
        })
    }

    pub(super) fn hub(&self) -> WebSocketHub {
        self.shared.hub.clone()
    }

    pub(super) fn serve(&self, occasion: Occasion, method: MethodHandle) {
        let methods = &self.shared.methods;
        let mut methods = methods.write().unwrap_or_else(PoisonError::into_inner);
        match occasion {
            Occasion::Request => drop(methods.by_name.insert(method.name(), method)),
            Occasion::Handshake => methods.handshake.push(method),
            Occasion::Connect => methods.connect.push(method),
            Occasion::Disconnect => methods.disconnect.push(method),
        }
    }

    /// Stops accepting requests, waits for those in progress, and closes all sockets.
    pub(super) async fn close(&self) {
        self.closed
            .get_or_init(|| async {
                self.shared.stopping.send_replace(true);
                self.web.withdraw().await;
                self.shared.hub.empty().await;
            })
            .await;
    }
}

impl SharedExtension for WebSocketServer {
    async fn stop(&self) {
        // After the timeout, sockets end with the container.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.close()).await;
    }

    fn kill(&self) {
        self.shared.stopping.send_replace(true);
    }
}

impl fmt::Debug for WebSocketServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketServer")
            .field("hub", &self.shared.hub)
            .finish_non_exhaustive()
    }
}

/// The handler of handshakes.
struct Endpoint(Weak<Shared>);

impl Handler for Endpoint {
    async fn handle(&self, request: RawRequest) -> Response {
        match self.open(request).await {
            Ok(response) | Err(response) => response,
        }
    }
}

impl Endpoint {
    /// Returns the response to a handshake, or the refusal of one.
    async fn open(&self, request: RawRequest) -> Result<Response, Response> {
        let stopping = || Error::stopping().into_response();
        let shared = self.0.upgrade().ok_or_else(stopping)?;
        let handshake = Handshake {
            method: request.method(),
            version: request.version(),
            headers: request.headers(),
            has_body: request.has_body(),
        };
        let response = switch(&handshake).map_err(Error::into_response)?;
        let origin = shared.origins.admit(request.headers());
        origin.map_err(Error::into_response)?;
        let (request, upgrade) = request.into_upgrade();
        let context = admission::admit(&shared, &request).await?;
        let container = shared.container.upgrade().ok_or_else(stopping)?;
        // Counted from here, so that a stop waits for the socket.
        let guest = shared.hub.enter();
        if *shared.stopping.borrow() {
            return Err(stopping());
        }
        container.spawn_managed("websocket", async move {
            open(shared, request, context, upgrade).await;
            drop(guest);
            Ok::<(), crate::Error>(())
        });
        Ok(response)
    }
}

/// Serves an upgraded connection.
async fn open(shared: Arc<Shared>, request: Request, context: Table, upgrade: Upgrade) {
    let Some(stream) = switched(upgrade, &shared.settings).await else {
        return;
    };
    let opening = Opening {
        id: Uuid::new_v4().to_string(),
        outbox: Arc::new(Outbox::new(shared.settings.max_queue)),
        request,
        context,
    };
    socket::serve(stream, opening, shared).await;
}
