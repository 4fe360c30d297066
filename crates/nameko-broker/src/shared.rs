//! What all connections of a broker share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use crate::{
    outbox::Outbox,
    settings::Settings,
    sync::lock,
    vhost::{ConnectionId, VHost},
};

/// One broker's settings, virtual hosts and connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) vhosts: HashMap<String, Arc<VHost>>,
    /// The open connections, by way of which they are told to close.
    connections: Mutex<HashMap<ConnectionId, Arc<Outbox>>>,
    next_connection: AtomicU64,
    /// Told whenever a connection ends.
    pub(crate) ended: Notify,
}

/// Keeps a connection in the list while it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Arc<Outbox>,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let vhosts = settings
            .vhosts()
            .into_iter()
            .map(|name| (name.to_owned(), Arc::new(VHost::new(name))))
            .collect();
        Self {
            settings,
            vhosts,
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            ended: Notify::new(),
        }
    }

    /// Adds a connection.
    pub(crate) fn register(self: &Arc<Self>) -> Registration {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(id));
        lock(&self.connections).insert(id, outbox.clone());
        Registration {
            shared: self.clone(),
            outbox,
        }
    }

    /// The connections there are now.
    pub(crate) fn connections(&self) -> Vec<Arc<Outbox>> {
        lock(&self.connections).values().cloned().collect()
    }
}

/// Waits until the broker stops.
pub(crate) async fn stopped(receiver: &mut watch::Receiver<bool>) {
    // An error means that the broker is gone altogether, which is as good.
    let _ = receiver.wait_for(|stop| *stop).await;
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.shared.connections).remove(&self.outbox.connection);
        self.shared.ended.notify_waiters();
    }
}
