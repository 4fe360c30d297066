//! The sending half of a channel.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::connection_state::ConnectionState;

/// Sends frames on a channel until either side closes it.
#[derive(Debug)]
pub(crate) struct ChannelWriter {
    pub(crate) id: u16,
    pub(crate) connection: Arc<ConnectionState>,
    /// Whether frames may be sent. Read and written under the lock of the connection's output, so
    /// that no frame follows a `channel.close` on the wire.
    open: AtomicBool,
}

impl ChannelWriter {
    pub(crate) fn new(id: u16, connection: Arc<ConnectionState>) -> Self {
        Self {
            id,
            connection,
            open: AtomicBool::new(true),
        }
    }

    /// Encodes frames into the output. Returns `false` without encoding if the channel is closed.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.connection
            .send_if(|| self.open.load(Ordering::Relaxed), encode)
    }

    /// Like [`send`](Self::send), but leaves the frames in the output until it is flushed.
    pub(crate) fn buffer(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.connection
            .buffer_if(|| self.open.load(Ordering::Relaxed), encode)
    }

    /// Encodes the last frames of the channel and closes it. Returns `false` without encoding if it
    /// is closed already.
    pub(crate) fn close_with(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.connection
            .send_if(|| self.open.swap(false, Ordering::Relaxed), encode)
    }

    /// Closes the channel without a frame. Returns `false` if it is closed already.
    pub(crate) fn close(&self) -> bool {
        let mut was_open = false;
        self.connection.send_if(
            || {
                was_open = self.open.swap(false, Ordering::Relaxed);
                false
            },
            |_| (),
        );
        was_open
    }

    /// Returns whether either side has closed the channel itself. The connection may be closed.
    pub(crate) fn is_closed(&self) -> bool {
        !self.open.load(Ordering::Relaxed)
    }

    /// Returns whether frames may be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed() && self.connection.is_open()
    }
}
