//! Locks that outlive a panic: one connection's fault does not take the broker down.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Locks, also after a thread panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the broker stops.
pub(crate) async fn stopped(receiver: &mut watch::Receiver<bool>) {
    // An error means that the broker is gone altogether, which is as good.
    let _ = receiver.wait_for(|stop| *stop).await;
}
