//! The WebSocket part of a container's web server: handshake at `/ws`, methods, sockets.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OnceCell, watch},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use uuid::Uuid;

use super::{
    super::{
        error::Error,
        raw::{RawRequest, Upgrade},
        request::Request,
        response::Response,
        server::{Handler, WebServer},
    },
    hub::WebSocketHub,
    origins::Origins,
    outbox::Outbox,
    socket::{self, Opening},
    transport::CLOSE_TIMEOUT,
};
use crate::{
    config::{Config, ConfigError},
    container::{Container, MethodHandle, WeakContainer},
    error::Result,
    extension::SharedExtension,
};

/// Path of the handshake. Source: Nameko 2.14.1.
const PATH: &str = "/ws";
/// Size of the read buffer per socket, in bytes.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// The sockets of a container, shared by its WebSocket entrypoints and hubs.
pub(super) struct WebSocketServer {
    shared: Arc<Shared>,
    web: Arc<WebServer>,
    /// Set by the first entrypoint that stops.
    closed: OnceCell<()>,
}

/// State shared by the sockets of a container.
pub(super) struct Shared {
    pub(super) container: WeakContainer,
    pub(super) hub: WebSocketHub,
    pub(super) settings: Settings,
    origins: Origins,
    methods: RwLock<Methods>,
    /// `true` once the container stops.
    pub(super) stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Methods {
    by_name: HashMap<&'static str, MethodHandle>,
    connect: Vec<MethodHandle>,
    disconnect: Vec<MethodHandle>,
}

/// Configuration of sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Maximum size of a received message, in bytes. `WEBSOCKET_MAX_MESSAGE`.
    pub(super) max_message: usize,
    /// Maximum number of bytes pending for one socket. `WEBSOCKET_MAX_QUEUE`.
    pub(super) max_queue: usize,
    /// Interval of pings to silent sockets, in seconds; 0 disables them. `WEBSOCKET_PING_INTERVAL`.
    pub(super) ping: Option<Duration>,
}

impl Settings {
    pub(super) fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let bytes = |key| match config.int(key)? {
            None => Ok(1 << 20),
            Some(number) => usize::try_from(number)
                .ok()
                .filter(|bytes| *bytes > 0)
                .ok_or_else(|| config.invalid(key, "must be a whole number above 0")),
        };
        let ping = config.float("WEBSOCKET_PING_INTERVAL")?.unwrap_or(30.0);
        let ping = Duration::try_from_secs_f64(ping).map_err(|_| {
            config.invalid(
                "WEBSOCKET_PING_INTERVAL",
                "must be a number of seconds, 0 or more",
            )
        })?;
        Ok(Self {
            max_message: bytes("WEBSOCKET_MAX_MESSAGE")?,
            max_queue: bytes("WEBSOCKET_MAX_QUEUE")?,
            ping: (!ping.is_zero()).then_some(ping),
        })
    }
}

/// The trigger of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Request,
    Connect,
    Disconnect,
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

impl Shared {
    pub(super) fn method(&self, name: &str) -> Option<MethodHandle> {
        self.read().by_name.get(name).cloned()
    }

    pub(super) fn hooks(&self, occasion: Occasion) -> Vec<MethodHandle> {
        match occasion {
            Occasion::Request => Vec::new(),
            Occasion::Connect => self.read().connect.clone(),
            Occasion::Disconnect => self.read().disconnect.clone(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Methods> {
        self.methods.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handler of handshakes.
struct Endpoint(Weak<Shared>);

impl Handler for Endpoint {
    async fn handle(&self, request: RawRequest) -> Response {
        self.open(request)
            .unwrap_or_else(|refusal| refusal.into_response())
    }
}

impl Endpoint {
    fn open(&self, request: RawRequest) -> Result<Response, Error> {
        let shared = self.0.upgrade().ok_or_else(Error::stopping)?;
        let container = shared.container.upgrade().ok_or_else(Error::stopping)?;
        let response = switch(&Handshake {
            method: request.method(),
            version: request.version(),
            headers: request.headers(),
            has_body: request.has_body(),
        })?;
        shared.origins.admit(request.headers())?;
        let (request, upgrade) = request.into_upgrade();
        // Counted from here, so that a stop waits for the socket.
        let guest = shared.hub.enter();
        container.spawn_managed("websocket", async move {
            open(shared, request, upgrade).await;
            drop(guest);
            Ok::<(), crate::Error>(())
        });
        Ok(response)
    }
}

/// Serves an upgraded connection.
async fn open(shared: Arc<Shared>, request: Request, upgrade: Upgrade) {
    let Some(stream) = switched(upgrade, &shared.settings).await else {
        return;
    };
    let opening = Opening {
        id: Uuid::new_v4().to_string(),
        outbox: Arc::new(Outbox::new(shared.settings.max_queue)),
        request,
    };
    socket::serve(stream, opening, shared).await;
}

/// Returns the upgraded connection; `None` if it ended before.
pub(super) async fn switched(
    upgrade: Upgrade,
    settings: &Settings,
) -> Option<WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let connection = match upgrade.connection().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!("no websocket: {error}");
            return None;
        }
    };
    let config = WebSocketConfig::default()
        // Allocated per socket.
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(settings.max_message))
        .max_frame_size(Some(settings.max_message));
    Some(WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await)
}

/// The relevant parts of a handshake request.
pub(super) struct Handshake<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) has_body: bool,
}

/// Creates the response to a handshake. Source: RFC 6455, section 4.2.
pub(super) fn switch(handshake: &Handshake<'_>) -> Result<Response, Error> {
    let accept = accept(handshake)?;
    let mut response = Response::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Validates a handshake and computes `Sec-WebSocket-Accept`.
fn accept(handshake: &Handshake<'_>) -> Result<HeaderValue, Error> {
    let headers = handshake.headers;
    let lists = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    if handshake.method != Method::GET
        || handshake.version < Version::HTTP_11
        || handshake.has_body
        || !lists(header::UPGRADE, "websocket")
        || !lists(header::CONNECTION, "upgrade")
    {
        return Err(Error::bad_request("expected a WebSocket handshake"));
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.map(HeaderValue::as_bytes) != Some(b"13") {
        let text = "the supported WebSocket version is 13";
        return Err(Error::new(StatusCode::UPGRADE_REQUIRED, text)
            .headers([("sec-websocket-version", "13"), ("upgrade", "websocket")])?);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())
        .ok_or_else(|| Error::bad_request("the header Sec-WebSocket-Key is missing or invalid"))
}
