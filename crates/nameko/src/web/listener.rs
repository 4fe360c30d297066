//! A listening port, shared by the containers of a process.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{
    address::KEY,
    connection,
    error_format::ErrorFormat,
    gate::GatePhase,
    layers::{HttpOptions, HttpService},
    router::{Route, Router},
    settings::{Limits, Settings},
    target::{PortPhase, Routes, Shared, Table, Target},
};
use crate::{
    config::Config,
    error::{Error, Result},
    sync::lock,
    tasks::Tasks,
};

/// Size of the queue of pending connections.
const LISTEN_BACKLOG: u32 = 1024;
/// Pause after a failed accept, such as for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The ports of the process.
static PORTS: Mutex<Ports> = Mutex::new(Ports {
    open: Vec::new(),
    announced: Vec::new(),
});

struct Ports {
    open: Vec<Weak<Listener>>,
    /// Routes of starting containers whose port is not open, with their addresses.
    announced: Vec<(SocketAddr, Arc<Route>)>,
}

impl Ports {
    fn listeners(&self) -> impl Iterator<Item = Arc<Listener>> {
        self.open.iter().filter_map(Weak::upgrade)
    }

    /// Returns the open listener of an address, unless that selects a free port.
    fn listener(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        self.listeners().find(|listener| {
            address.port() != 0 && listener.address == address && *listener.accepting.borrow()
        })
    }
}

/// An open port, closed when its last container leaves.
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    members: Mutex<Members>,
    /// The accept loop and one task per connection.
    tasks: Arc<Tasks>,
    /// True until the port is closed.
    accepting: watch::Receiver<bool>,
}

/// The containers on a port.
#[derive(Default)]
struct Members {
    /// Their routes.
    routes: Vec<Arc<Route>>,
    /// The layers, with the names of the services that have set them. They stay when these leave,
    /// so that no route loses an authentication.
    layers: HttpOptions,
    stack: Option<HttpService>,
    layered: Vec<Arc<str>>,
    /// The format of errors without a route, that of the first service with one.
    errors: Option<Arc<dyn ErrorFormat>>,
}

impl Members {
    /// Adds the routes of a container.
    fn add(&mut self, joining: &Joining<'_>) -> Result<Table> {
        let fresh = |route: &&Arc<Route>| {
            let known = self.routes.iter();
            !known.clone().any(|known| Arc::ptr_eq(known, route))
        };
        let fresh: Vec<_> = joining.routes.iter().filter(fresh).cloned().collect();
        let router = Router::new(self.routes.iter().chain(&fresh)).map_err(Error::Declaration)?;
        if joining.options.has_layers() {
            self.set_layers(joining)?;
        }
        self.routes.extend(fresh);
        if self.errors.is_none() {
            self.errors.clone_from(&joining.options.errors);
        }
        Ok(self.table(router))
    }

    fn set_layers(&mut self, joining: &Joining<'_>) -> Result<()> {
        let same = self.layers.has_layers_of(joining.options);
        match self.layered.first() {
            Some(first) if !same => {
                return Err(Error::Declaration(format!(
                    "{first} and {} set different HTTP layers for the same address; set them once, with \
                     `Services::http_layer`, or give the services different ports with WEB_SERVER_ADDRESS",
                    joining.service
                )));
            }
            _ if !same => {
                self.stack = Some(joining.options.stack(joining.config)?);
                self.layers = joining.options.clone();
            }
            _ => {}
        }
        if !self.layered.iter().any(|name| &**name == joining.service) {
            self.layered.push(joining.service.into());
        }
        Ok(())
    }

    fn table(&self, router: Router) -> Table {
        let formats = self.routes.iter().any(|route| route.errors.is_some());
        Table {
            router,
            stack: self.stack.clone(),
            errors: self.errors.clone(),
            has_formats: formats || self.errors.is_some(),
        }
    }
}

/// A container that joins a port.
pub(super) struct Joining<'a> {
    pub(super) service: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) config: &'a Config,
    pub(super) options: &'a HttpOptions,
    pub(super) routes: &'a [Arc<Route>],
}

impl Joining<'_> {
    /// Announces the routes at `address` before the container starts: if the port is open, or opens
    /// meanwhile, they are answered with 503.
    pub(super) fn announce(&self, address: SocketAddr) -> Result<()> {
        if address.port() == 0 {
            return Ok(());
        }
        let mut ports = lock(&PORTS);
        match ports.listener(address) {
            Some(open) if open.is_serving() => open.add(self),
            _ => {
                let routes = self.routes.iter().cloned();
                ports.announced.extend(routes.map(|route| (address, route)));
                Ok(())
            }
        }
    }

    /// Serves the routes at `address`, on an existing port of this process or a new one.
    pub(super) async fn join(&self, address: SocketAddr) -> Result<Arc<Listener>> {
        loop {
            let mut closed = match self.try_join(address)? {
                Joined::Open(listener) => return Ok(listener),
                Joined::Closing(accepting) => accepting,
            };
            // An error means that the accept loop has ended, so the port is closed.
            let _ = closed.wait_for(|accepting| !accepting).await;
        }
    }

    fn try_join(&self, address: SocketAddr) -> Result<Joined> {
        let mut ports = lock(&PORTS);
        ports.open.retain(|listener| listener.strong_count() > 0);
        if let Some(open) = ports.listener(address) {
            if !open.is_serving() {
                return Ok(Joined::Closing(open.accepting.clone()));
            }
            open.add(self)?;
            return Ok(Joined::Open(open));
        }
        let mut members = Members::default();
        // Validates the routes before opening a port.
        let mut table = members.add(self)?;
        let announced = ports.announced.iter();
        let mut others = announced
            .filter(|(other, _)| *other == address)
            .map(|(_, route)| route.clone())
            .filter(|route| !self.routes.iter().any(|own| Arc::ptr_eq(own, route)))
            .peekable();
        if others.peek().is_some() {
            members.routes.extend(others);
            let router = Router::new(&members.routes).map_err(Error::Declaration)?;
            table = members.table(router);
        }
        let socket = bind(address, self.settings.reuse_port).map_err(|error| {
            let here = ports
                .listeners()
                .find(|listener| {
                    listener.address.port() == address.port() && *listener.accepting.borrow()
                })
                .map(|listener| listener.address);
            self.cannot_listen(address, here, &error)
        })?;
        let target = Target::Routes(Routes::new(table));
        let listener = Listener::start(socket, target, self.settings.limits, members)
            .map_err(|error| self.cannot_listen(address, None, &error))?;
        ports.announced.retain(|(other, _)| *other != address);
        ports.open.push(Arc::downgrade(&listener));
        Ok(Joined::Open(listener))
    }

    fn cannot_listen(
        &self,
        address: SocketAddr,
        here: Option<SocketAddr>,
        error: &io::Error,
    ) -> Error {
        let text = cannot_listen(address, here, error);
        Error::from(self.config.invalid(KEY, text))
    }
}

/// Removes the routes of a service that was announced, but has not joined a port.
pub(super) fn forget(service: &str, routes: &[Arc<Route>]) {
    let mut ports = lock(&PORTS);
    ports
        .announced
        .retain(|(_, route)| !is_among(route, routes));
    for listener in ports.listeners() {
        listener.remove(service, routes);
    }
}

fn is_among(route: &Arc<Route>, routes: &[Arc<Route>]) -> bool {
    routes.iter().any(|other| Arc::ptr_eq(route, other))
}

impl Listener {
    /// Serves `target` on a port of its own.
    pub(super) fn open(
        socket: TcpListener,
        target: Target,
        limits: Limits,
    ) -> io::Result<Arc<Self>> {
        Self::start(socket, target, limits, Members::default())
    }

    fn start(
        socket: TcpListener,
        target: Target,
        limits: Limits,
        members: Members,
    ) -> io::Result<Arc<Self>> {
        let (state, accepting) = watch::channel(true);
        let listener = Arc::new(Self {
            address: socket.local_addr()?,
            shared: Arc::new(Shared {
                target,
                limits,
                phase: watch::Sender::new(PortPhase::Serving),
            }),
            members: Mutex::new(members),
            tasks: Arc::default(),
            accepting,
        });
        tracing::info!("listening on http://{}", listener.address);
        let (shared, tasks) = (listener.shared.clone(), Arc::downgrade(&listener.tasks));
        listener.tasks.spawn(async move {
            // Reports the closed port on every exit of the task, after closing it.
            let _closed = Closed(state);
            accept(socket, shared, tasks).await;
        });
        Ok(listener)
    }

    /// Returns the local address, with the actual port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn is_serving(&self) -> bool {
        *self.shared.phase.borrow() == PortPhase::Serving
    }

    fn add(&self, joining: &Joining<'_>) -> Result<()> {
        let table = lock(&self.members).add(joining)?;
        self.publish(table);
        Ok(())
    }

    fn publish(&self, table: Table) {
        if let Target::Routes(routes) = &self.shared.target {
            routes.publish(table);
        }
    }

    /// Closes the port unless routes of another container are open, and waits until it is closed.
    pub(super) async fn withdraw(&self) {
        let last = {
            // Held so that no container joins meanwhile.
            let mut ports = lock(&PORTS);
            let mut members = lock(&self.members);
            let last = !members
                .routes
                .iter()
                .any(|route| route.gate.is(GatePhase::Open));
            if last {
                let starting = |route: &mut Arc<Route>| route.gate.is(GatePhase::Starting);
                let starting = members.routes.extract_if(.., starting);
                ports
                    .announced
                    .extend(starting.map(|route| (self.address, route)));
                self.shared.advance(match &self.shared.target {
                    Target::Routes(_) => PortPhase::Draining,
                    // It has a drain of its own, which ends with the requests in flight.
                    Target::Embedded(_) => PortPhase::Closing,
                });
            }
            last
        };
        if last {
            // An error means that the accept loop has ended.
            let _ = self
                .accepting
                .clone()
                .wait_for(|accepting| !accepting)
                .await;
        }
    }

    /// Removes the routes of the service. Returns `true` if none are left.
    fn remove(&self, service: &str, routes: &[Arc<Route>]) -> bool {
        let mut members = lock(&self.members);
        members.layered.retain(|name| &**name != service);
        members.routes.retain(|route| !is_among(route, routes));
        // A subset of conflict-free routes has no conflicts.
        if let Ok(router) = Router::new(members.routes.iter()) {
            self.publish(members.table(router));
        }
        let is_empty = members.routes.is_empty();
        if is_empty {
            self.shared.advance(PortPhase::Closing);
        }
        is_empty
    }

    /// Removes the routes of the service. If none are left, waits for the connections to end, until
    /// `deadline`.
    pub(super) async fn leave(&self, service: &str, routes: &[Arc<Route>], deadline: Instant) {
        if !self.remove_locked(service, routes) {
            return;
        }
        if tokio::time::timeout_at(deadline, self.tasks.finished())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.tasks.running(),
                "clients of http://{} did not read their responses in time; closing their connections",
                self.address
            );
        }
        self.tasks.abort();
    }

    /// Removes the routes of the service. If none are left, aborts the connections.
    pub(super) fn leave_now(&self, service: &str, routes: &[Arc<Route>]) {
        if self.remove_locked(service, routes) {
            self.tasks.abort();
        }
    }

    fn remove_locked(&self, service: &str, routes: &[Arc<Route>]) -> bool {
        // Held so that no container joins meanwhile.
        let _ports = lock(&PORTS);
        self.remove(service, routes)
    }
}

enum Joined {
    Open(Arc<Listener>),
    /// The port is closing and can be reopened afterwards.
    Closing(watch::Receiver<bool>),
}

/// Reports the closed port on drop.
struct Closed(watch::Sender<bool>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

pub(super) fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // On Windows, `SO_REUSEADDR` would let another program bind the port.
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
    }
    #[cfg(not(unix))]
    let _ = reuse_port;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Accepts connections until the port closes.
async fn accept(socket: TcpListener, shared: Arc<Shared>, tasks: Weak<Tasks>) {
    let limit = shared.limits.max_connections.min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(limit));
    let mut phase = shared.phase.subscribe();
    let accepting = async {
        loop {
            if permits.available_permits() == 0 {
                tracing::warn!(
                    "{limit} connections are open (WEB_SERVER_MAX_CONNECTIONS); further ones wait"
                );
            }
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            match socket.accept().await {
                Ok((stream, peer)) => {
                    let Some(tasks) = tasks.upgrade() else { return };
                    let connection = connection::serve(stream, peer, shared.clone(), permit);
                    tasks.spawn(Box::pin(connection));
                }
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = phase.wait_for(|phase| *phase != PortPhase::Serving) => {}
    }
}

/// Returns `true` if a client disconnected before it was accepted.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Describes a bind error; continues a sentence that begins with the config key.
pub(super) fn cannot_listen(
    address: SocketAddr,
    here: Option<SocketAddr>,
    error: &io::Error,
) -> String {
    match (error.kind(), here) {
        (io::ErrorKind::AddrInUse, Some(here)) => format!(
            "is {address}, but another service of this process listens on {here}: configure the same address for both"
        ),
        (io::ErrorKind::AddrInUse, None) => format!(
            "is {address}, where another program listens ({error}): stop it or choose another port (0 for a free one)"
        ),
        (io::ErrorKind::PermissionDenied, _) => format!(
            "is {address}, where this user may not listen ({error}): choose a port above 1023"
        ),
        (io::ErrorKind::AddrNotAvailable, _) => format!(
            "is {address}, which is not an address of this machine ({error}); 0.0.0.0 listens on all interfaces"
        ),
        _ => format!("is {address}: cannot listen there: {error}"),
    }
}
