//! What all connections of a broker share.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, mpsc};

use crate::{
    connection_info::{ConnectionInfo, VHostSession},
    ids::ConnectionId,
    send_buffer::SendBuffer,
    settings::Settings,
    sync::lock,
    vhost::VHost,
};

/// One broker's settings, virtual hosts and connections.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) settings: Settings,
    /// By name. VHostGuard before `connections` where both are.
    vhosts: Mutex<BTreeMap<String, Arc<VHost>>>,
    /// Virtual hosts that are new, for the task that runs their timers.
    new_vhosts: mpsc::UnboundedSender<Arc<VHost>>,
    /// The open connections, by way of which they are told to close.
    connections: Mutex<HashMap<ConnectionId, ConnectionInfo>>,
    next_connection_id: AtomicU64,
    /// Told whenever a connection leaves its virtual host or addrs.
    pub(crate) connection_ended: Notify,
}

/// Keeps a connection in the list while it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    pub(crate) broker: Arc<BrokerState>,
    pub(crate) send_buffer: Arc<SendBuffer>,
}

impl BrokerState {
    /// Also gives the virtual hosts, those to come too: their timers are the caller's to run.
    pub(crate) fn new(settings: Settings) -> (Self, mpsc::UnboundedReceiver<Arc<VHost>>) {
        let names: Vec<String> = settings.vhosts().into_iter().map(str::to_owned).collect();
        let (new_vhosts, timers) = mpsc::unbounded_channel();
        let broker = Self {
            settings,
            vhosts: Mutex::default(),
            new_vhosts,
            connections: Mutex::default(),
            next_connection_id: AtomicU64::new(1),
            connection_ended: Notify::new(),
        };
        for name in names {
            broker.add_vhost(&name);
        }
        (broker, timers)
    }

    /// Adds a virtual host; false when there is one of that name.
    pub(crate) fn add_vhost(&self, name: &str) -> bool {
        let mut vhosts = lock(&self.vhosts);
        if vhosts.contains_key(name) {
            return false;
        }
        let vhost = Arc::new(VHost::new(name));
        // Nobody receives in a broker that has no timers, which the fuzzer's has not.
        let _ = self.new_vhosts.send(vhost.clone());
        vhosts.insert(name.to_owned(), vhost);
        true
    }

    /// Removes a virtual host with all that is in it; false when there is none. Its consumers are cancelled and its
    /// connections closed with 320 CONNECTION_FORCED, as by RabbitMQ.
    pub(crate) fn delete_vhost(&self, name: &str) -> bool {
        let mut vhosts = lock(&self.vhosts);
        let Some(vhost) = vhosts.remove(name) else {
            return false;
        };
        let mut closing = Vec::new();
        for info in lock(&self.connections).values_mut() {
            if info.session.take_if(|it| it.vhost == name).is_some() {
                closing.push(info.send_buffer.clone());
            }
        }
        drop(vhosts);
        vhost.lock().delete_all();
        vhost.wake_others(None);
        for send_buffer in closing {
            send_buffer.force_close(&format!("vhost '{name}' is deleted"));
        }
        true
    }

    /// The virtual host of this name.
    #[cfg(feature = "management")]
    pub(crate) fn vhost(&self, name: &str) -> Option<Arc<VHost>> {
        lock(&self.vhosts).get(name).cloned()
    }

    /// All virtual hosts, by name.
    pub(crate) fn vhosts(&self) -> Vec<(String, Arc<VHost>)> {
        lock(&self.vhosts)
            .iter()
            .map(|(name, vhost)| (name.clone(), vhost.clone()))
            .collect()
    }

    /// A number for a connection, or for something that acts as one.
    pub(crate) fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a connection; `addrs` are the peer's address and the broker's.
    pub(crate) fn register(
        self: &Arc<Self>,
        addrs: Option<(SocketAddr, SocketAddr)>,
    ) -> ConnectionGuard {
        let id = self.next_connection_id();
        let send_buffer = Arc::new(SendBuffer::new(id));
        let info = ConnectionInfo {
            send_buffer: send_buffer.clone(),
            addrs,
            session: None,
        };
        lock(&self.connections).insert(id, info);
        ConnectionGuard {
            broker: self.clone(),
            send_buffer,
        }
    }

    /// Lets a connection into a virtual host; `None` when there is no such.
    pub(crate) fn enter_vhost(
        &self,
        connection: ConnectionId,
        session: VHostSession,
    ) -> Option<Arc<VHost>> {
        // Kept locked, or the virtual host could be deleted before this connection is known to be in it.
        let vhosts = lock(&self.vhosts);
        let vhost = vhosts.get(&session.vhost)?.clone();
        if let Some(info) = lock(&self.connections).get_mut(&connection) {
            info.session = Some(session);
        }
        Some(vhost)
    }

    /// Notes that a connection is out of its virtual host, and on its way to its end.
    pub(crate) fn leave_vhost(&self, connection: ConnectionId) {
        if let Some(info) = lock(&self.connections).get_mut(&connection) {
            info.session = None;
        }
        self.connection_ended.notify_waiters();
    }

    /// The connections there are now.
    pub(crate) fn send_buffers(&self) -> Vec<Arc<SendBuffer>> {
        lock(&self.connections)
            .values()
            .map(|info| info.send_buffer.clone())
            .collect()
    }

    /// What is known of each connection that is in a virtual host, the oldest first.
    #[cfg(feature = "management")]
    pub(crate) fn open_connections(&self) -> Vec<ConnectionInfo> {
        let mut clients: Vec<ConnectionInfo> = lock(&self.connections)
            .values()
            .filter(|info| info.session.is_some())
            .cloned()
            .collect();
        clients.sort_unstable_by_key(|info| info.send_buffer.connection.0);
        clients
    }

    /// Whether a connection is in a virtual host.
    #[cfg(feature = "management")]
    pub(crate) fn is_open(&self, connection: ConnectionId) -> bool {
        lock(&self.connections)
            .get(&connection)
            .is_some_and(|info| info.session.is_some())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        lock(&self.broker.connections).remove(&self.send_buffer.connection);
        self.broker.connection_ended.notify_waiters();
    }
}
