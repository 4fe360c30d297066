//! Who hears of each worker's end: the waiters of tests.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use super::Container;
use crate::{service::Outcome, worker::WorkerContext};

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

impl Container {
    /// Tells `watch` of workers that end from now on, as long as it lives.
    pub(crate) fn watch(&self, watch: &Arc<impl Watch + 'static>) {
        let watch: Arc<dyn Watch> = watch.clone();
        let watchers = &self.inner.watchers;
        let mut list = watchers.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::downgrade(&watch));
        watchers.any.store(true, Ordering::Release);
    }
}
