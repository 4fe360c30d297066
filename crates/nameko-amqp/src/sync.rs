//! Locking.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks even if somebody panicked with the lock held: what these locks guard is whole after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
