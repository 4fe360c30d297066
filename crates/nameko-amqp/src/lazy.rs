//! A lazily created, shared resource, recreated when invalid.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use crate::{error::Error, sync::lock};

/// A shared connection or channel, created on first use.
///
/// A spawned task creates it, so that a caller that is cancelled does not cancel the creation for
/// the others. The creation has to be bounded in time by itself.
#[derive(Debug)]
pub(crate) struct Lazy<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    Empty,
    /// In creation, with the channel for the result. The sender is dropped if the task is dropped
    /// with its runtime.
    Creating(watch::Receiver<Option<Result<T, Error>>>),
    Ready(T),
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Slot::Empty)))
    }
}

impl<T: Clone + Send + Sync + 'static> Lazy<T> {
    /// Returns the value if it exists, valid or not.
    pub(crate) fn peek(&self) -> Option<T> {
        match &*lock(&self.0) {
            Slot::Ready(value) => Some(value.clone()),
            _ => None,
        }
    }

    /// Takes the value out, leaving the slot empty.
    pub(crate) fn take(&self) -> Option<T> {
        match std::mem::replace(&mut *lock(&self.0), Slot::Empty) {
            Slot::Ready(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the value if it is valid, else creates a new one, once for all concurrent callers.
    pub(crate) async fn get<F>(
        &self,
        is_valid: impl Fn(&T) -> bool,
        create: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        loop {
            let mut result = {
                let mut slot = lock(&self.0);
                match &*slot {
                    Slot::Ready(value) if is_valid(value) => return Ok(value.clone()),
                    Slot::Creating(result)
                        if result.has_changed().is_ok() || result.borrow().is_some() =>
                    {
                        result.clone()
                    }
                    _ => {
                        let (sender, result) = watch::channel(None);
                        *slot = Slot::Creating(result.clone());
                        tokio::spawn(fill(Arc::clone(&self.0), create(), sender));
                        result
                    }
                }
            };
            let created = result.wait_for(Option::is_some).await;
            if let Ok(Some(created)) = created.as_deref() {
                return created.clone();
            }
            // The creating task was dropped with its runtime: try again on this one.
        }
    }
}

async fn fill<T: Clone>(
    slot: Arc<Mutex<Slot<T>>>,
    creation: impl Future<Output = Result<T, Error>>,
    result: watch::Sender<Option<Result<T, Error>>>,
) {
    let created = creation.await;
    *lock(&slot) = match &created {
        Ok(value) => Slot::Ready(value.clone()),
        Err(_) => Slot::Empty,
    };
    result.send_replace(Some(created));
}
