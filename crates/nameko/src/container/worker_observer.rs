//! Observers of workers, used by test waiters.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use crate::{reply::Outcome, worker::WorkerContext};

/// Observes the end of every worker of a container.
pub(crate) trait WorkerObserver: Send + Sync {
    /// Called when a worker has ended, after the hooks of the providers.
    fn worker_ended(&self, ctx: &WorkerContext, outcome: &Outcome);
}

#[derive(Default)]
pub(super) struct WorkerObservers {
    /// Set when the first observer is added; a cheap check for every worker.
    any: AtomicBool,
    list: Mutex<Vec<Weak<dyn WorkerObserver>>>,
}

impl WorkerObservers {
    /// Adds `observer`, until it is dropped.
    #[cfg(feature = "testing")]
    pub(super) fn add(&self, observer: &Arc<impl WorkerObserver + 'static>) {
        let observer: Arc<dyn WorkerObserver> = observer.clone();
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::downgrade(&observer));
        self.any.store(true, Ordering::Release);
    }

    /// Returns whether there may be observers.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns the observers that still exist.
    pub(super) fn current(&self) -> Vec<Arc<dyn WorkerObserver>> {
        if !self.any() {
            return Vec::new();
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|observer| observer.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }
}
