//! State shared by all connections of a broker.

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

/// Settings, virtual hosts and connections of a broker.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) settings: Settings,
    /// Virtual hosts by name. Locked before `connections` where both are locked.
    vhosts: Mutex<BTreeMap<String, Arc<VHost>>>,
    /// Sends each new virtual host to the task that runs the timers.
    new_vhosts: mpsc::UnboundedSender<Arc<VHost>>,
    /// Open connections.
    connections: Mutex<HashMap<ConnectionId, ConnectionInfo>>,
    next_connection_id: AtomicU64,
    /// Notified whenever a connection leaves its virtual host or ends.
    pub(crate) connection_ended: Notify,
}

/// Registration of a connection, removed on drop.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    pub(crate) broker: Arc<BrokerState>,
    pub(crate) send_buffer: Arc<SendBuffer>,
}

impl BrokerState {
    /// Returns the state and a receiver of all present and future virtual hosts. The caller runs
    /// their timers.
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

    /// Adds a virtual host. Returns `false` if one with this name exists.
    pub(crate) fn add_vhost(&self, name: &str) -> bool {
        let mut vhosts = lock(&self.vhosts);
        if vhosts.contains_key(name) {
            return false;
        }
        let vhost = Arc::new(VHost::new(name));
        // Without a timer task, as in fuzzing, there is no receiver.
        let _ = self.new_vhosts.send(vhost.clone());
        vhosts.insert(name.to_owned(), vhost);
        true
    }

    /// Removes a virtual host and everything in it. Returns `false` if it does not exist. As in
    /// RabbitMQ, its consumers are cancelled and its connections closed with 320 CONNECTION_FORCED.
    pub(crate) fn delete_vhost(&self, name: &str) -> bool {
        let mut vhosts = lock(&self.vhosts);
        let Some(vhost) = vhosts.remove(name) else {
            return false;
        };
        let mut closing = Vec::new();
        for info in lock(&self.connections).values_mut() {
            if info
                .session
                .take_if(|session| session.vhost == name)
                .is_some()
            {
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

    /// Returns the virtual host with this name.
    #[cfg(feature = "management")]
    pub(crate) fn vhost(&self, name: &str) -> Option<Arc<VHost>> {
        lock(&self.vhosts).get(name).cloned()
    }

    /// Returns all virtual hosts, sorted by name.
    pub(crate) fn vhosts(&self) -> Vec<(String, Arc<VHost>)> {
        lock(&self.vhosts)
            .iter()
            .map(|(name, vhost)| (name.clone(), vhost.clone()))
            .collect()
    }

    /// Allocates the id of a connection, or of an internal user that acts as one.
    pub(crate) fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers a connection. `addrs` holds the peer's and the local address.
    pub(crate) fn register(
        self: &Arc<Self>,
        addrs: Option<(SocketAddr, SocketAddr)>,
        tls: bool,
    ) -> ConnectionGuard {
        let id = self.next_connection_id();
        let send_buffer = Arc::new(SendBuffer::new(id));
        let info = ConnectionInfo {
            send_buffer: send_buffer.clone(),
            addrs,
            tls,
            session: None,
        };
        lock(&self.connections).insert(id, info);
        ConnectionGuard {
            broker: self.clone(),
            send_buffer,
        }
    }

    /// Returns the address of a connection's peer, for logs.
    pub(crate) fn peer(&self, connection: ConnectionId) -> Option<String> {
        let connections = lock(&self.connections);
        let (peer, _) = connections.get(&connection)?.addrs?;
        Some(peer.to_string())
    }

    /// Assigns a connection to a virtual host. Returns `None` if that does not exist.
    pub(crate) fn enter_vhost(
        &self,
        connection: ConnectionId,
        session: VHostSession,
    ) -> Option<Arc<VHost>> {
        // Held until the session is recorded, else the virtual host could be deleted in between.
        let vhosts = lock(&self.vhosts);
        let vhost = vhosts.get(&session.vhost)?.clone();
        if let Some(info) = lock(&self.connections).get_mut(&connection) {
            info.session = Some(session);
        }
        Some(vhost)
    }

    /// Records that a connection has left its virtual host and is closing.
    pub(crate) fn leave_vhost(&self, connection: ConnectionId) {
        if let Some(info) = lock(&self.connections).get_mut(&connection) {
            info.session = None;
        }
        self.connection_ended.notify_waiters();
    }

    /// Returns the send buffers of all current connections.
    pub(crate) fn send_buffers(&self) -> Vec<Arc<SendBuffer>> {
        lock(&self.connections)
            .values()
            .map(|info| info.send_buffer.clone())
            .collect()
    }

    /// Returns the connections that are in a virtual host, oldest first.
    #[cfg(feature = "management")]
    pub(crate) fn open_connections(&self) -> Vec<ConnectionInfo> {
        let mut connections: Vec<ConnectionInfo> = lock(&self.connections)
            .values()
            .filter(|info| info.session.is_some())
            .cloned()
            .collect();
        connections.sort_unstable_by_key(|info| info.send_buffer.connection.0);
        connections
    }

    /// Returns whether a connection is in a virtual host.
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
