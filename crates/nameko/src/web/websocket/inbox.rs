//! Pending requests of one socket.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Bytes;

/// Maximum number of pending requests per socket.
const MAX_PENDING_REQUESTS: usize = 16;

/// A bounded queue of pending requests, limited in number and in total size (that of the largest
/// message). A full inbox stops reading from the socket.
pub(super) struct Inbox {
    requests: mpsc::Sender<Waiting>,
    /// Free space; one permit per byte.
    room: Arc<Semaphore>,
    limit: u32,
    /// Whether a request is waiting for space.
    full: AtomicBool,
}

/// A pending request, which frees its space on drop.
pub(super) struct Waiting {
    pub(super) message: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> (Self, mpsc::Receiver<Waiting>) {
        let (requests, waiting) = mpsc::channel(MAX_PENDING_REQUESTS);
        let limit = u32::try_from(limit.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let inbox = Self {
            requests,
            room: Arc::new(Semaphore::new(limit as usize)),
            limit,
            full: AtomicBool::new(false),
        };
        (inbox, waiting)
    }

    /// Adds a request after waiting for space. Returns `false` if the receiver is gone.
    pub(super) async fn push(&self, message: Bytes) -> bool {
        self.full.store(true, Ordering::Relaxed);
        let size = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(size.min(self.limit));
        let Ok(room) = room.await else {
            return false;
        };
        let waiting = Waiting {
            message,
            _room: room,
        };
        let taken = self.requests.send(waiting).await.is_ok();
        self.full.store(false, Ordering::Relaxed);
        taken
    }

    /// Returns `true` if the last request is waiting for space.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn requests_wait_for_space() {
        let (inbox, mut waiting) = Inbox::new(10);
        let push = |text: &'static str| inbox.push(Bytes::from_static(text.as_bytes()));
        assert!(push("123456").await && push("").await);
        let mut more = Box::pin(push("larger than the limit"));
        assert!(more.as_mut().now_or_never().is_none() && inbox.is_full());
        for expected in ["123456", ""] {
            let waiting = waiting.recv().await.expect("a request");
            assert_eq!(waiting.message, expected);
        }
        assert!(more.await && !inbox.is_full());
        let mut more = Box::pin(push("1"));
        assert!(more.as_mut().now_or_never().is_none());
        drop(waiting);
        assert!(!more.await);
    }

    #[tokio::test]
    async fn the_number_of_requests_is_limited() {
        let (inbox, _waiting) = Inbox::new(1000);
        for _ in 0..MAX_PENDING_REQUESTS {
            assert!(inbox.push(Bytes::new()).await);
        }
        assert!(inbox.push(Bytes::new()).now_or_never().is_none());
    }
}
