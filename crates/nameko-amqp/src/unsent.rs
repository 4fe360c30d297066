//! Published messages that are not flushed yet.

use std::sync::Arc;

use crate::connection_state::ConnectionState;

/// A handle to a message that is encoded but not flushed, from
/// [`Publisher::try_publish`](crate::Publisher::try_publish).
///
/// Flushing it also sends the messages that were encoded on the same connection before and after
/// it. Any other frame sent on the connection flushes them as well.
#[derive(Clone)]
#[must_use = "the message is not sent before it is flushed"]
pub struct Unsent(Arc<ConnectionState>);

impl Unsent {
    pub(crate) fn new(connection: Arc<ConnectionState>) -> Self {
        Self(connection)
    }

    /// Writes the buffered messages to the socket. Does not block: bytes that the socket does not
    /// accept are left to the connection's task.
    #[inline]
    pub fn flush(self) {
        self.0.flush();
    }

    /// Returns whether both messages are on the same connection, so that one flush sends both.
    #[inline]
    pub fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
