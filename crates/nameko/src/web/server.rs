//! The web server of a container.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::Method;
use tokio::time::Instant;

use super::{
    handler::Handler,
    listener::Listener,
    router::{Route, Router, Template},
    settings::{Limits, Settings},
};
use crate::{
    config::Config,
    container::Container,
    error::{Error, Result},
    extension::SharedExtension,
    sync::lock,
};

/// The web server of a container, used by `#[http]` and custom HTTP entrypoints.
///
/// Containers of a process with the same address (`WEB_SERVER_ADDRESS`) share a port.
pub struct WebServer {
    service: String,
    config: Config,
    settings: Settings,
    /// Whether the routes accept requests.
    open: Arc<AtomicBool>,
    routes: Mutex<Vec<Arc<Route>>>,
    /// Set at the start.
    listener: OnceLock<Arc<Listener>>,
    /// Time of the first stop request.
    stopped: OnceLock<Instant>,
}

impl WebServer {
    /// Returns the web server of `container`; for the `setup` of entrypoints.
    ///
    /// # Errors
    /// [`Error::Config`] if a config key is invalid.
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

    /// Adds a route to `handler`, named `name` in errors.
    ///
    /// `methods` is a comma-separated list, such as `GET` or `GET,POST`. In the path, `{name}` is a
    /// parameter; a final `{*name}` matches the rest of the path.
    ///
    /// # Errors
    /// If the methods or the path are invalid. Conflicts with other routes fail the start of the
    /// container.
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
        // Reports an invalid path here, conflicts at the start.
        Router::new([&route]).map_err(Error::Declaration)?;
        self.routes().push(route);
        Ok(())
    }

    /// Returns the local address after the start, with the actual port if port 0 is configured.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.get().map(|listener| listener.address())
    }

    /// Stops accepting requests; each entrypoint awaits it in `stop`.
    ///
    /// Requests in progress continue. Closes the port unless other containers use it.
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
        lock(&self.routes)
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

/// Parses the methods and the path of a route of `owner`.
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
