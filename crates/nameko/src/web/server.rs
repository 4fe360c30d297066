//! The web server of a container.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use http::Method;

use super::{
    gate::{Gate, GatePhase},
    handler::Handler,
    layers::HttpOptions,
    listener::{self, Joining, Listener},
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
    options: HttpOptions,
    /// Whether the routes accept requests.
    gate: Arc<Gate>,
    routes: Mutex<Vec<Arc<Route>>>,
    /// Set at the start.
    listener: OnceLock<Arc<Listener>>,
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
                options: container.attachment().cloned().unwrap_or_default(),
                gate: Arc::default(),
                routes: Mutex::default(),
                listener: OnceLock::new(),
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
            gate: self.gate.clone(),
            errors: self.options.errors.clone(),
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
        self.gate.advance(GatePhase::Draining);
        if let Some(listener) = self.listener.get() {
            listener.withdraw().await;
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.settings.limits
    }

    fn joining<'a>(&'a self, routes: &'a [Arc<Route>]) -> Joining<'a> {
        Joining {
            service: &self.service,
            settings: &self.settings,
            config: &self.config,
            options: &self.options,
            routes,
        }
    }

    async fn resolve(&self) -> Result<SocketAddr> {
        Ok(self.settings.address.resolve(&self.config).await?)
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Route>>> {
        lock(&self.routes)
    }
}

impl SharedExtension for WebServer {
    async fn prepare(&self) -> Result<()> {
        let routes = self.routes().clone();
        if routes.is_empty() {
            return Ok(());
        }
        let address = self.resolve().await?;
        self.joining(&routes).announce(address)
    }

    async fn start(&self) -> Result<()> {
        let routes = self.routes().clone();
        if routes.is_empty() {
            return Ok(());
        }
        let address = self.resolve().await?;
        let listener = self.joining(&routes).join(address).await?;
        let _ = self.listener.set(listener);
        self.gate.advance(GatePhase::Open);
        Ok(())
    }

    async fn stop(&self) {
        self.gate.advance(GatePhase::Closed);
        let routes = self.routes().clone();
        let Some(listener) = self.listener.get() else {
            return listener::forget(&self.service, &routes);
        };
        let deadline = self.gate.draining_since() + self.settings.limits.stop_timeout;
        listener.leave(&self.service, &routes, deadline).await;
    }

    fn kill(&self) {
        self.gate.advance(GatePhase::Closed);
        let routes = self.routes();
        match self.listener.get() {
            Some(listener) => listener.leave_now(&self.service, &routes),
            None => listener::forget(&self.service, &routes),
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
