//! Who hears of each worker's end: the waiters of tests.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use crate::{reply::Outcome, worker::WorkerContext};

/// Hears of the end of each worker.
pub(crate) trait Watch: Send + Sync {
    /// A worker has ended; its providers have heard of it before.
    fn ended(&self, ctx: &WorkerContext, outcome: &Outcome);
}

#[derive(Default)]
pub(super) struct Watchers {
    /// Whether there ever was one: asked for every worker.
    any: AtomicBool,
    list: Mutex<Vec<Weak<dyn Watch>>>,
}

impl Watchers {
    /// Adds `watch`, until it is dropped.
    pub(super) fn add(&self, watch: &Arc<impl Watch + 'static>) {
        let watch: Arc<dyn Watch> = watch.clone();
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::downgrade(&watch));
        self.any.store(true, Ordering::Release);
    }

    /// Those that there are now.
    pub(super) fn current(&self) -> Vec<Arc<dyn Watch>> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|it| it.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }
}
