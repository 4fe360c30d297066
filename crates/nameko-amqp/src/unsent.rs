//! Messages that are encoded and not flushed.

use std::sync::Arc;

use crate::connection_state::ConnectionState;

/// A message that is encoded and not sent yet; so are those that were put after it on its connection.
#[derive(Clone)]
#[must_use = "what is not flushed is not sent"]
pub struct Unsent(pub(crate) Arc<ConnectionState>);

impl Unsent {
    /// Has it sent. Does not wait.
    pub fn flush(self) {
        self.0.flush();
    }

    /// Whether it is for the same connection.
    pub fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
