//! Locks that survive a panic of their holder: the state behind them is kept whole by every holder before it can panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` for a few lines; never across an `.await` and never around a call into Python.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
