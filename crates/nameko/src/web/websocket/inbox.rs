//! What one socket has sent and is not handled yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Bytes;

/// How many requests of one socket may wait for the one that runs.
const WAITING: usize = 16;

/// Where the requests of one socket wait for the one that runs: so many, and together no larger than the largest may be. What
/// comes then is not read before there is room.
pub(super) struct Inbox {
    requests: mpsc::Sender<Waiting>,
    /// One permit per byte.
    room: Arc<Semaphore>,
    limit: u32,
    /// Whether the next one waits for room.
    full: AtomicBool,
}

/// A request that waits. Its room is free when it is dropped.
pub(super) struct Waiting {
    pub(super) message: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> (Self, mpsc::Receiver<Waiting>) {
        let (requests, waiting) = mpsc::channel(WAITING);
        let limit = u32::try_from(limit.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let inbox = Self {
            requests,
            room: Arc::new(Semaphore::new(limit as usize)),
            limit,
            full: AtomicBool::new(false),
        };
        (inbox, waiting)
    }

    /// Adds a request, once there is room. `false` when nobody takes any more.
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

    /// Whether there is no room for what the socket has sent last.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn requests_wait_for_room() {
        let (inbox, mut waiting) = Inbox::new(10);
        let push = |text: &'static str| inbox.push(Bytes::from_static(text.as_bytes()));
        assert!(push("123456").await && push("").await);
        let mut more = Box::pin(push("larger than what there may be"));
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
    async fn many_small_requests_wait_too() {
        let (inbox, _waiting) = Inbox::new(1000);
        for _ in 0..WAITING {
            assert!(inbox.push(Bytes::new()).await);
        }
        assert!(inbox.push(Bytes::new()).now_or_never().is_none());
    }
}
