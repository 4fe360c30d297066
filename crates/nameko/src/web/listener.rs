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
    router::{Route, Router},
    settings::{Limits, Settings},
    target::{Routes, Shared, Target},
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

/// The open ports of the process.
static OPEN: Mutex<Vec<Weak<Listener>>> = Mutex::new(Vec::new());

/// An open port, closed when its last container leaves.
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The routes of all containers on this port.
    routes: Mutex<Vec<Arc<Route>>>,
    /// The accept loop and one task per connection.
    tasks: Arc<Tasks>,
    /// True until the port is closed.
    accepting: watch::Receiver<bool>,
}

impl Listener {
    /// Serves `routes` at `address`, on an existing port of this process or a new one.
    pub(super) async fn join(
        address: SocketAddr,
        settings: &Settings,
        config: &Config,
        routes: &[Arc<Route>],
    ) -> Result<Arc<Self>> {
        loop {
            let mut closed = match Self::try_join(address, settings, config, routes)? {
                Joined::Open(listener) => return Ok(listener),
                Joined::Closing(accepting) => accepting,
            };
            // An error means that the accept loop has ended, so the port is closed.
            let _ = closed.wait_for(|accepting| !accepting).await;
        }
    }

    fn try_join(
        address: SocketAddr,
        settings: &Settings,
        config: &Config,
        routes: &[Arc<Route>],
    ) -> Result<Joined> {
        let mut open = lock(&OPEN);
        open.retain(|listener| listener.strong_count() > 0);
        let known = open.iter().filter_map(Weak::upgrade).find(|listener| {
            address.port() != 0 && listener.address == address && *listener.accepting.borrow()
        });
        if let Some(known) = known {
            if *known.shared.closing.borrow() {
                return Ok(Joined::Closing(known.accepting.clone()));
            }
            known.add(routes)?;
            return Ok(Joined::Open(known));
        }
        // Validates the routes before opening a port.
        let router = Router::new(routes).map_err(Error::Declaration)?;
        let socket = bind(address, settings.reuse_port).map_err(|error| {
            let here = open
                .iter()
                .filter_map(Weak::upgrade)
                .find(|listener| {
                    listener.address.port() == address.port() && *listener.accepting.borrow()
                })
                .map(|listener| listener.address);
            Error::from(config.invalid(KEY, cannot_listen(address, here, &error)))
        })?;
        let target = Target::Routes(Routes::new(router));
        let listener = Self::open(socket, target, settings.limits, routes).map_err(|error| {
            Error::from(config.invalid(KEY, cannot_listen(address, None, &error)))
        })?;
        open.push(Arc::downgrade(&listener));
        Ok(Joined::Open(listener))
    }

    /// Serves `target` on a port of its own.
    pub(super) fn open(
        socket: TcpListener,
        target: Target,
        limits: Limits,
        routes: &[Arc<Route>],
    ) -> io::Result<Arc<Self>> {
        let (state, accepting) = watch::channel(true);
        let listener = Arc::new(Self {
            address: socket.local_addr()?,
            shared: Arc::new(Shared {
                target,
                limits,
                closing: watch::Sender::new(false),
            }),
            routes: Mutex::new(routes.to_vec()),
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

    fn add(&self, routes: &[Arc<Route>]) -> Result<()> {
        let mut all = lock(&self.routes);
        let router = Router::new(all.iter().chain(routes)).map_err(Error::Declaration)?;
        all.extend_from_slice(routes);
        self.publish(router);
        Ok(())
    }

    fn publish(&self, router: Router) {
        if let Target::Routes(routes) = &self.shared.target {
            routes.publish(router);
        }
    }

    /// Closes the port unless routes of another container are open, and waits until it is closed.
    pub(super) async fn withdraw(&self) {
        let last = {
            // Held so that no container joins meanwhile.
            let _open = lock(&OPEN);
            let last = !lock(&self.routes).iter().any(|route| route.is_open());
            if last {
                self.shared.closing.send_replace(true);
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

    /// Removes routes. Returns `true` if none are left.
    fn remove(&self, routes: &[Arc<Route>]) -> bool {
        let _open = lock(&OPEN);
        let mut all = lock(&self.routes);
        all.retain(|route| !routes.iter().any(|other| Arc::ptr_eq(route, other)));
        // A subset of conflict-free routes has no conflicts.
        if let Ok(router) = Router::new(all.iter()) {
            self.publish(router);
        }
        if all.is_empty() {
            self.shared.closing.send_replace(true);
        }
        all.is_empty()
    }

    /// Removes routes. If none are left, waits for the connections to end, until `deadline`.
    pub(super) async fn leave(&self, routes: &[Arc<Route>], deadline: Instant) {
        if !self.remove(routes) {
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

    /// Removes routes. If none are left, aborts the connections.
    pub(super) fn leave_now(&self, routes: &[Arc<Route>]) {
        if self.remove(routes) {
            self.tasks.abort();
        }
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
    let mut closing = shared.closing.subscribe();
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
        _ = closing.wait_for(|closing| *closing) => {}
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
