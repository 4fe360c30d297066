//! Shared ownership of a connection.

use std::sync::Arc;

use crate::{channel_registry::ChannelRegistry, connection_state::ConnectionState};

/// A connection as its handles and channels own it. Closes it on drop.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) channels: Arc<ChannelRegistry>,
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        // The driver ends within the timeout of a graceful close.
        self.state.close();
    }
}
