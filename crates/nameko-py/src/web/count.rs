//! A count of requests or sockets, with waiting for zero.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts one more until it is dropped.
pub(super) struct CountGuard(Arc<watch::Sender<usize>>);

impl CountGuard {
    pub(super) fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        CountGuard(count.clone())
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
