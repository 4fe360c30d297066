//! Something that is made when it is first wanted, once for all who want it, and again when it is of no more use.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use crate::{error::Error, sync::lock};

/// A connection or channel that is shared.
///
/// A task of its own makes it, so that one who gives up waiting does not undo it for the others. How long making may take is
/// bounded by what is made.
#[derive(Debug)]
pub(crate) struct Lazy<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    Empty,
    /// Being made; tells when that is done. The sender is gone when the task went with its runtime.
    Making(watch::Receiver<Option<Result<T, Error>>>),
    Made(T),
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Slot::Empty)))
    }
}

impl<T: Clone + Send + Sync + 'static> Lazy<T> {
    /// What was made, if it was.
    pub(crate) fn peek(&self) -> Option<T> {
        match &*lock(&self.0) {
            Slot::Made(made) => Some(made.clone()),
            _ => None,
        }
    }

    /// Takes out what was made.
    pub(crate) fn take(&self) -> Option<T> {
        match std::mem::replace(&mut *lock(&self.0), Slot::Empty) {
            Slot::Made(made) => Some(made),
            _ => None,
        }
    }

    /// What was made if it is `usable`, else a new one.
    pub(crate) async fn get<F>(
        &self,
        usable: impl Fn(&T) -> bool,
        make: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        loop {
            let mut making = {
                let mut slot = lock(&self.0);
                match &*slot {
                    Slot::Made(made) if usable(made) => return Ok(made.clone()),
                    Slot::Making(making)
                        if making.has_changed().is_ok() || making.borrow().is_some() =>
                    {
                        making.clone()
                    }
                    _ => {
                        let (done, making) = watch::channel(None);
                        *slot = Slot::Making(making.clone());
                        tokio::spawn(fill(Arc::clone(&self.0), make(), done));
                        making
                    }
                }
            };
            let made = making.wait_for(Option::is_some).await;
            if let Ok(Some(made)) = made.as_deref() {
                return made.clone();
            }
            // The task is gone with its runtime: this one makes it.
        }
    }
}

async fn fill<T: Clone>(
    slot: Arc<Mutex<Slot<T>>>,
    making: impl Future<Output = Result<T, Error>>,
    done: watch::Sender<Option<Result<T, Error>>>,
) {
    let made = making.await;
    *lock(&slot) = match &made {
        Ok(made) => Slot::Made(made.clone()),
        Err(_) => Slot::Empty,
    };
    done.send_replace(Some(made));
}
