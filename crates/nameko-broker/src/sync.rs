//! Locks without poisoning, and the shutdown signal.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Locks a mutex, ignoring poison: a panic on one connection must not take the broker down.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the broker stops.
pub(crate) async fn stopped(receiver: &mut watch::Receiver<bool>) {
    // An error means that the broker was dropped, which counts as stopped.
    let _ = receiver.wait_for(|stop| *stop).await;
}
