//! What a fake was given.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::TIMEOUT;
use crate::error::{Error, Result};

/// Keeps what a fake was given, in order, for the test to look at. Cheap to clone; all clones are one recorder.
///
/// ```
/// use nameko::{ServiceProxy, testing::Recorder};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nameko::Result<()> {
/// let calls = Recorder::new();
/// let recorder = calls.clone();
/// let stock = ServiceProxy::fake("stock", move |method, args, _kwargs| {
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
    /// Told of each item.
    grown: Notify,
}

impl<T> Recorder<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one item.
    pub fn record(&self, item: T) {
        self.lock().push(item);
        self.shared.grown.notify_waiters();
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All items, which it keeps no longer.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until there are `count` items or more, then takes all.
    ///
    /// # Errors
    /// `RecorderTimeout` when there are not as many after [`TIMEOUT`]; it tells how many there are.
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
        let items = self.shared.items.lock();
        items.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Recorder<T> {
    /// A copy of all items.
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
    async fn who_waits_for_items_gets_them_or_hears_how_many_there_are() {
        let recorder = Recorder::new();
        recorder.record(1);
        let late = recorder.clone();
        let (both, ()) = tokio::join!(recorder.take_when(2), async move { late.record(2) });
        assert_eq!(both.expect("in time"), [1, 2]);
        let error = recorder.take_when(1).await.expect_err("nothing more");
        assert_eq!(error.to_string(), "0 of 1 items were recorded within 30s");
    }
}
