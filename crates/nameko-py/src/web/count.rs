//! A count of requests or sockets, with waiting for zero.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts one more until it is dropped.
pub(super) struct CountGuard(Arc<watch::Sender<usize>>);

impl CountGuard {
    pub(super) fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        // Nothing waits for an increment.
        count.send_if_modified(|count| {
            *count += 1;
            false
        });
        CountGuard(count.clone())
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.send_if_modified(|count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}
