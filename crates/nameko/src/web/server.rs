//! The web server of a container.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use http::Method;
use tokio::time::Instant;

use super::{
    listener::Listener,
    raw::RawRequest,
    response::Response,
    router::{Route, Router, Template},
    settings::{Limits, Settings},
};
use crate::{
    config::Config,
    container::Container,
    error::{Error, Result},
    extension::SharedExtension,
};

/// The web server of a container, for entrypoints that serve HTTP in a way of their own. `#[http]` uses it.
///
/// Containers of one process that are configured with the same address (`WEB_SERVER_ADDRESS`) share its port.
pub struct WebServer {
    service: String,
    config: Config,
    settings: Settings,
    /// Of all its routes: whether they take requests.
    open: Arc<AtomicBool>,
    routes: Mutex<Vec<Arc<Route>>>,
    /// Set at the start.
    listener: OnceLock<Arc<Listener>>,
    /// When it was first told to stop.
    stopped: OnceLock<Instant>,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request. Dropped unfinished when the server is killed.
    fn handle(&self, request: RawRequest) -> impl Future<Output = Response> + Send;
}

impl WebServer {
    /// The web server of `container`. For use in an entrypoint's `setup`.
    ///
    /// # Errors
    /// [`Error::Config`] when a config key does not hold what it should.
    pub fn of(container: &Container) -> Result<Arc<Self>> {
        container.shared(|container| {
            Ok(Self {
                service: container.service_name().to_owned(),
                config: container.config().clone(),
                settings: Settings::from_config(container.config())?,
                open: Arc::new(AtomicBool::new(true)),
                routes: Mutex::default(),
                listener: OnceLock::new(),
                stopped: OnceLock::new(),
            })
        })
    }

    /// Adds a route: requests with one of `methods` (`GET`, or several: `GET,POST`) to `path` go to `handler`, which is
    /// called `name` in errors. In the path, `{name}` is a parameter, and `{*name}`, at its end, all that follows.
    ///
    /// # Errors
    /// The methods or the path cannot be read. That a route is taken is told at the container's start.
    pub fn route(
        &self,
        methods: &str,
        path: &str,
        name: &str,
        handler: impl Handler,
    ) -> Result<()> {
        let owner = format!("{}.{name}", self.service);
        let (methods, template) = parse(methods, path, &owner)?;
        let route = Route {
            methods,
            template,
            owner,
            handler: Box::new(handler),
            open: self.open.clone(),
        };
        let route = Arc::new(route);
        // What is wrong with the path alone is told here.
        Router::new([&route]).map_err(Error::Declaration)?;
        self.routes().push(route);
        Ok(())
    }

    /// Where it listens, once the container is started: with the port that was taken, where port 0 is configured.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.get().map(|it| it.address())
    }

    /// Takes no more requests. To be called, and waited for, by each entrypoint's `stop`. Requests that run go on; the port
    /// is closed, unless other containers serve on it.
    pub async fn withdraw(&self) {
        self.open.store(false, Ordering::Release);
        self.stopped.get_or_init(Instant::now);
        if let Some(listener) = self.listener.get() {
            listener.withdraw().await;
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.settings.limits
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Route>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedExtension for WebServer {
    async fn start(&self) -> Result<()> {
        let routes = self.routes().clone();
        if routes.is_empty() {
            return Ok(());
        }
        let address = self.settings.address.resolve(&self.config).await?;
        let listener = Listener::join(address, &self.settings, &self.config, &routes).await?;
        let _ = self.listener.set(listener);
        Ok(())
    }

    async fn stop(&self) {
        self.open.store(false, Ordering::Release);
        let Some(listener) = self.listener.get() else {
            return;
        };
        let routes = self.routes().clone();
        let begun = *self.stopped.get_or_init(Instant::now);
        listener
            .leave(&routes, begun + self.settings.limits.stop_timeout)
            .await;
    }

    fn kill(&self) {
        self.open.store(false, Ordering::Release);
        if let Some(listener) = self.listener.get() {
            listener.leave_now(&self.routes());
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for WebServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebServer")
            .field("service", &self.service)
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

/// [`Handler`] without its type.
pub(super) trait DynHandler: Send + Sync {
    fn handle(&self, request: RawRequest) -> BoxFuture<'_, Response>;
}

impl<H: Handler> DynHandler for H {
    fn handle(&self, request: RawRequest) -> BoxFuture<'_, Response> {
        Box::pin(Handler::handle(self, request))
    }
}

/// The methods and the path of a route that `owner` serves.
pub(super) fn parse(methods: &str, path: &str, owner: &str) -> Result<(Vec<Method>, Template)> {
    let wrong = |text: String| Error::Declaration(format!("the route of {owner}: {text}"));
    let template =
        Template::parse(path).map_err(|why| wrong(format!("the path `{path}` {why}")))?;
    Ok((parse_methods(methods).map_err(wrong)?, template))
}

fn parse_methods(text: &str) -> Result<Vec<Method>, String> {
    let mut methods = Vec::new();
    for word in text.split(',').map(str::trim) {
        let method = Method::from_bytes(word.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("`{word}` is no HTTP method"))?;
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Ok(methods)
}
