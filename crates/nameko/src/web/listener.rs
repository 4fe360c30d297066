//! The port that containers of one process listen on, together.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
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
    server::DynHandler,
    settings::{Limits, Settings},
};
use crate::{
    config::Config,
    error::{Error, Result},
    sync::lock,
    tasks::Tasks,
};

/// How many connections the system holds that were not accepted yet.
const BACKLOG: u32 = 1024;
/// How long accepting pauses when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The open ports of the process.
static OPEN: Mutex<Vec<Weak<Listener>>> = Mutex::new(Vec::new());

/// An open port. Closed by the last container that leaves it.
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The routes of all containers on this port.
    routes: Mutex<Vec<Arc<Route>>>,
    /// The task that accepts, and one per connection.
    tasks: Arc<Tasks>,
    /// True until the port is closed.
    accepting: watch::Receiver<bool>,
}

/// What connections share.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) limits: Limits,
    /// True once no more requests are taken.
    pub(super) closing: watch::Sender<bool>,
}

/// Who answers the requests of a port.
pub(super) enum Target {
    /// The handlers of routes.
    Routes(Routes),
    /// One handler, whatever the method and the path are.
    Embedded(Box<dyn DynHandler>),
}

/// Routes that come and go.
pub(super) struct Routes(RwLock<Arc<Router>>);

impl Routes {
    pub(super) fn router(&self) -> Arc<Router> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn publish(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(router);
    }
}

impl Listener {
    /// Serves `routes` at `address`: on the port of other containers of this process, or on a new one.
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
            // An error says that the task that accepted is gone: closed, too.
            let _ = closed.wait_for(|it| !it).await;
        }
    }

    fn try_join(
        address: SocketAddr,
        settings: &Settings,
        config: &Config,
        routes: &[Arc<Route>],
    ) -> Result<Joined> {
        let mut open = lock(&OPEN);
        open.retain(|it| it.strong_count() > 0);
        let known = open
            .iter()
            .filter_map(Weak::upgrade)
            .find(|it| address.port() != 0 && it.address == address && *it.accepting.borrow());
        if let Some(known) = known {
            if *known.shared.closing.borrow() {
                return Ok(Joined::Closing(known.accepting.clone()));
            }
            known.add(routes)?;
            return Ok(Joined::Open(known));
        }
        // Checked before anything is opened.
        let router = Router::new(routes).map_err(Error::Declaration)?;
        let socket = bind(address, settings.reuse_port).map_err(|error| {
            let here = open
                .iter()
                .filter_map(Weak::upgrade)
                .find(|it| it.address.port() == address.port() && *it.accepting.borrow())
                .map(|it| it.address);
            Error::from(config.invalid(KEY, cannot_listen(address, here, &error)))
        })?;
        let target = Target::Routes(Routes(RwLock::new(Arc::new(router))));
        let listener = Self::open(socket, target, settings.limits, routes).map_err(|error| {
            Error::from(config.invalid(KEY, cannot_listen(address, None, &error)))
        })?;
        open.push(Arc::downgrade(&listener));
        Ok(Joined::Open(listener))
    }

    /// Serves `target` on a port that is not shared by its address.
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
            // Whatever ends the task: the port is closed before it says so.
            let _closed = Closed(state);
            accept(socket, shared, tasks).await;
        });
        Ok(listener)
    }

    /// Where it listens: the port is a real one.
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

    /// Lets no more requests in, if no other container's routes are open. Returns when the port is closed then.
    pub(super) async fn withdraw(&self) {
        let last = {
            // Nobody joins meanwhile.
            let _open = lock(&OPEN);
            let last = !lock(&self.routes).iter().any(|it| it.is_open());
            if last {
                self.shared.closing.send_replace(true);
            }
            last
        };
        if last {
            // An error says that the task that accepted is gone.
            let _ = self.accepting.clone().wait_for(|it| !it).await;
        }
    }

    /// Takes a container's routes away.
    ///
    /// Returns whether they were the last.
    fn remove(&self, routes: &[Arc<Route>]) -> bool {
        let _open = lock(&OPEN);
        let mut all = lock(&self.routes);
        all.retain(|it| !routes.iter().any(|other| Arc::ptr_eq(it, other)));
        // A part of what fitted together does.
        if let Ok(router) = Router::new(all.iter()) {
            self.publish(router);
        }
        if all.is_empty() {
            self.shared.closing.send_replace(true);
        }
        all.is_empty()
    }

    /// Takes a container's routes away. The last one waits for the connections to end, until `deadline`.
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
                "clients of http://{} have not taken their answers in time; their connections are cut",
                self.address
            );
        }
        self.tasks.abort();
    }

    /// Takes a container's routes away. The last one cuts the connections.
    pub(super) fn leave_now(&self, routes: &[Arc<Route>]) {
        if self.remove(routes) {
            self.tasks.abort();
        }
    }
}

enum Joined {
    Open(Arc<Listener>),
    /// Of a port that is about to be closed, and can then be opened again.
    Closing(watch::Receiver<bool>),
}

/// Says, at its end, that the port is closed.
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
    // On Windows it would let another program take the port.
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
    }
    #[cfg(not(unix))]
    let _ = reuse_port;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the port is to be closed.
async fn accept(socket: TcpListener, shared: Arc<Shared>, tasks: Weak<Tasks>) {
    let limit = shared.limits.max_connections.min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(limit));
    let mut closing = shared.closing.subscribe();
    let accepting = async {
        loop {
            if permits.available_permits() == 0 {
                tracing::warn!(
                    "{limit} connections are open (WEB_SERVER_MAX_CONNECTIONS); others wait"
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
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = closing.wait_for(|it| *it) => {}
    }
}

/// The client gave up before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Continues a sentence that begins with the key.
pub(super) fn cannot_listen(
    address: SocketAddr,
    here: Option<SocketAddr>,
    error: &io::Error,
) -> String {
    match (error.kind(), here) {
        (io::ErrorKind::AddrInUse, Some(here)) => format!(
            "is {address}, while another service of this process listens on {here}: give both the same address"
        ),
        (io::ErrorKind::AddrInUse, None) => format!(
            "is {address}, which another program listens on ({error}): stop it, or choose another port; 0 takes a free one"
        ),
        (io::ErrorKind::PermissionDenied, _) => format!(
            "is {address}, which this user may not listen on ({error}): choose a port above 1023"
        ),
        (io::ErrorKind::AddrNotAvailable, _) => format!(
            "is {address}, which is no address of this machine ({error}); 0.0.0.0 is all of them"
        ),
        _ => format!("is {address}, which cannot be listened on: {error}"),
    }
}
