//! A recorder for mocks.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::timeout::TIMEOUT;
use crate::{
    error::{Error, Result},
    sync::lock,
};

/// Records the items passed to a mock, in order. Cheap to clone; clones share the items.
///
/// ```
/// use nameko::{ServiceProxy, testing::Recorder};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nameko::Result<()> {
/// let calls = Recorder::new();
/// let recorder = calls.clone();
/// let stock = ServiceProxy::mock("stock", move |method, args, _kwargs| {
///     recorder.record((method.to_owned(), args));
///     Ok(true.into())
/// });
/// stock.call::<bool>("reserve", ("widget", 3)).await?;
/// assert_eq!(calls.items(), [("reserve".to_owned(), serde_json::json!(["widget", 3]))]);
/// # Ok(()) }
/// ```
pub struct Recorder<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    items: Mutex<Vec<T>>,
    /// Notified on each item.
    grown: Notify,
}

impl<T> Recorder<T> {
    /// Creates an empty recorder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an item.
    pub fn record(&self, item: T) {
        self.lock().push(item);
        self.shared.grown.notify_waiters();
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns `true` if there are no items.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Removes and returns all items.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits for at least `count` items, then removes and returns all.
    ///
    /// # Errors
    /// `RecorderTimeout` after [`TIMEOUT`], with the number of items recorded so far.
    pub async fn take_when(&self, count: usize) -> Result<Vec<T>> {
        self.take_within(count, TIMEOUT).await
    }

    async fn take_within(&self, count: usize, limit: Duration) -> Result<Vec<T>> {
        let enough = async {
            loop {
                let grown = self.shared.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                if self.len() >= count {
                    return self.take();
                }
                grown.await;
            }
        };
        timeout(limit, enough).await.map_err(|_| {
            let text = format!(
                "{} of {count} items were recorded within {limit:?}",
                self.len()
            );
            Error::raise("RecorderTimeout", text)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        lock(&self.shared.items)
    }
}

impl<T: Clone> Recorder<T> {
    /// Returns a copy of all items.
    pub fn items(&self) -> Vec<T> {
        self.lock().clone()
    }
}

impl<T> Default for Recorder<T> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                items: Mutex::default(),
                grown: Notify::new(),
            }),
        }
    }
}

impl<T> Clone for Recorder<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Recorder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_for_items_returns_them_or_times_out_with_their_number() {
        let recorder = Recorder::new();
        recorder.record(1);
        let late = recorder.clone();
        let (both, ()) = tokio::join!(recorder.take_when(2), async move { late.record(2) });
        assert_eq!(both.expect("in time"), [1, 2]);
        let error = recorder.take_when(1).await.expect_err("nothing more");
        assert_eq!(error.to_string(), "0 of 1 items were recorded within 30s");
    }
}
