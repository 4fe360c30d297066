//! The hub: channel subscriptions and events.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use serde::Serialize;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{frames, outbox::Outbox};
use crate::{
    error::{Error, Result},
    protocol::Fault,
    sync::lock,
};

/// The sockets of a container and their channel subscriptions.
///
/// Cheap to clone; clones share the state. A hub only reaches the sockets of its own process: to
/// reach those of other instances, broadcast from a handler of a `broadcast` event.
/// [`WebSocketHub::default`] has no sockets, for tests without a container.
#[derive(Clone, Default)]
pub struct WebSocketHub(Arc<Sockets>);

#[derive(Default)]
struct Sockets {
    state: Mutex<State>,
    /// Number of sockets, from the handshake to the end of the disconnect hooks.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    sockets: HashMap<String, Socket>,
    /// Ids of the subscribed sockets, by channel.
    channels: HashMap<String, BTreeSet<String>>,
}

struct Socket {
    outbox: Arc<Outbox>,
    channels: BTreeSet<String>,
}

impl WebSocketHub {
    /// Returns the sorted channels of a socket; empty for an unknown socket.
    pub fn get_subscriptions(&self, socket_id: &str) -> Vec<String> {
        let state = self.lock();
        let socket = state.sockets.get(socket_id);
        socket.map_or_else(Vec::new, |socket| socket.channels.iter().cloned().collect())
    }

    /// Subscribes a socket to a channel.
    ///
    /// # Errors
    /// `ConnectionNotFound` if the socket is unknown.
    pub fn subscribe(&self, socket_id: &str, channel: &str) -> Result<()> {
        let mut state = self.lock();
        let Some(socket) = state.sockets.get_mut(socket_id) else {
            return Err(Error::raised(Fault::nameko(
                "ConnectionNotFound",
                socket_id,
            )));
        };
        socket.channels.insert(channel.to_owned());
        let channel = state.channels.entry(channel.to_owned()).or_default();
        channel.insert(socket_id.to_owned());
        Ok(())
    }

    /// Unsubscribes a socket from a channel.
    pub fn unsubscribe(&self, socket_id: &str, channel: &str) {
        let mut state = self.lock();
        if let Some(socket) = state.sockets.get_mut(socket_id) {
            socket.channels.remove(channel);
        }
        state.forget(socket_id, channel);
    }

    /// Sends an event to all subscribers of a channel, and returns their number.
    ///
    /// Does not block: a socket with a full outbox is closed.
    ///
    /// # Errors
    /// [`Error::Serialization`] if JSON cannot represent the data.
    pub fn broadcast(
        &self,
        channel: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize> {
        let outboxes: Vec<_> = {
            let state = self.lock();
            let ids = state.channels.get(channel).into_iter().flatten();
            ids.filter_map(|id| state.sockets.get(id))
                .map(|socket| socket.outbox.clone())
                .collect()
        };
        // Serialized once for all subscribers.
        let text = Utf8Bytes::from(frames::event(event, data)?);
        let sent = outboxes.iter().filter(|outbox| outbox.push(text.clone()));
        Ok(sent.count())
    }

    /// Sends an event to one socket. Returns `false` if the socket is unknown or closed.
    ///
    /// # Errors
    /// [`Error::Serialization`] if JSON cannot represent the data.
    pub fn unicast(
        &self,
        socket_id: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<bool> {
        let text = frames::event(event, data)?;
        let outbox = self
            .lock()
            .sockets
            .get(socket_id)
            .map(|socket| socket.outbox.clone());
        Ok(outbox.is_some_and(|outbox| outbox.push(text.into())))
    }

    /// Returns the ids of the connected sockets.
    pub fn sockets(&self) -> Vec<String> {
        self.lock().sockets.keys().cloned().collect()
    }

    pub(super) fn add(&self, socket_id: &str, outbox: Arc<Outbox>) {
        let channels = BTreeSet::new();
        self.lock()
            .sockets
            .insert(socket_id.to_owned(), Socket { outbox, channels });
    }

    /// Removes a socket and returns its channels.
    pub(super) fn remove(&self, socket_id: &str) -> BTreeSet<String> {
        let mut state = self.lock();
        let Some(socket) = state.sockets.remove(socket_id) else {
            return BTreeSet::new();
        };
        for channel in &socket.channels {
            state.forget(socket_id, channel);
        }
        socket.channels
    }

    /// Counts an opening socket until the returned guard is dropped.
    pub(super) fn enter(&self) -> Guest {
        self.0.count.send_modify(|count| *count += 1);
        Guest(self.clone())
    }

    /// Waits until all counted sockets have ended.
    pub(super) async fn empty(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.0.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

/// Guard of a counted socket.
pub(super) struct Guest(WebSocketHub);

impl Drop for Guest {
    fn drop(&mut self) {
        let count = &self.0.0.count;
        count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl State {
    fn forget(&mut self, socket_id: &str, channel: &str) {
        if let Some(sockets) = self.channels.get_mut(channel) {
            sockets.remove(socket_id);
            if sockets.is_empty() {
                self.channels.remove(channel);
            }
        }
    }
}

impl fmt::Debug for WebSocketHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("WebSocketHub")
            .field("sockets", &state.sockets.len())
            .field("channels", &state.channels)
            .finish()
    }
}
