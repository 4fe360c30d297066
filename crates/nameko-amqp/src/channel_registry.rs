//! The open channels of a connection.

use std::sync::{Arc, Mutex};

use crate::{
    channel_state::ChannelState, connection_state::ConnectionState, error::Error, sync::lock,
};

/// The channels of one connection, by number.
#[derive(Debug, Default)]
pub(crate) struct ChannelRegistry(Mutex<Channels>);

#[derive(Debug, Default)]
struct Channels {
    /// Channel `n` is at index `n - 1`.
    slots: Vec<Option<Arc<ChannelState>>>,
    /// Error that ended the connection; no channel can be added after it.
    closed: Option<Error>,
}

impl ChannelRegistry {
    /// Adds a channel with the lowest free number.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or all channel numbers are in use.
    pub(crate) fn add(
        &self,
        connection: &Arc<ConnectionState>,
    ) -> Result<Arc<ChannelState>, Error> {
        let mut channels = lock(&self.0);
        if let Some(error) = &channels.closed {
            return Err(error.clone());
        }
        let index = match channels.slots.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                channels.slots.push(None);
                channels.slots.len() - 1
            }
        };
        let id = u16::try_from(index + 1).unwrap_or(u16::MAX);
        let limit = connection.limits.channel_max;
        if id > limit {
            channels.slots.truncate(index);
            return Err(Error::Unsendable {
                reason: format!(
                    "all {limit} channels that {} allows on a connection are in use",
                    connection.peer
                ),
            });
        }
        let channel = Arc::new(ChannelState::new(id, Arc::clone(connection)));
        channels.slots[index] = Some(Arc::clone(&channel));
        Ok(channel)
    }

    /// Returns the channel with a number.
    pub(crate) fn get(&self, id: u16) -> Option<Arc<ChannelState>> {
        let index = usize::from(id).checked_sub(1)?;
        lock(&self.0).slots.get(index)?.clone()
    }

    /// Frees a channel number.
    pub(crate) fn remove(&self, id: u16) {
        let Some(index) = usize::from(id).checked_sub(1) else {
            return;
        };
        if let Some(slot) = lock(&self.0).slots.get_mut(index) {
            *slot = None;
        }
    }

    /// Closes all channels with `error` and accepts no more.
    pub(crate) fn close(&self, error: &Error) {
        let open = {
            let mut channels = lock(&self.0);
            channels.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut channels.slots)
        };
        for channel in open.into_iter().flatten() {
            channel.set_closed(error.clone());
        }
    }
}
