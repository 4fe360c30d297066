//! Pending messages to one socket.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Utf8Bytes, protocol::frame::coding::CloseCode};

use crate::sync::lock;

/// Maximum size of a close reason: a control frame has 125 bytes, two of them for the code. Source:
/// RFC 6455, section 5.5.
const MAX_REASON_BYTES: usize = 123;

/// A bounded queue of messages to a socket, and its close frame. A socket that does not read is
/// closed.
pub(super) struct Outbox {
    /// Maximum number of pending bytes. A single message may be larger.
    limit: usize,
    state: Mutex<State>,
    /// Notified when a message or a close is queued.
    filled: Notify,
    /// Notified when a message is dequeued.
    drained: Notify,
    /// Notified when the socket closes without draining.
    cut: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// Set once; then no more messages are accepted.
    closing: Option<Closing>,
}

/// How a socket is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    /// Close frame for the peer; `None` if the peer is gone.
    pub(super) frame: Option<(CloseCode, String)>,
    /// Whether pending messages are sent first.
    pub(super) drains: bool,
}

impl Closing {
    /// Closes after sending all pending messages. A long reason is truncated.
    pub(super) fn after_all(code: CloseCode, reason: &str) -> Self {
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        Self {
            frame: Some((code, reason)),
            drains: true,
        }
    }

    /// Closes without sending pending messages.
    pub(super) fn now(code: CloseCode, reason: &str) -> Self {
        Self {
            drains: false,
            ..Self::after_all(code, reason)
        }
    }

    /// Closes without a frame: the peer is gone.
    pub(super) fn gone() -> Self {
        Self {
            frame: None,
            drains: false,
        }
    }
}

/// The next item to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Message(Utf8Bytes),
    Close(Closing),
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// Queues a message. Returns `false` if the socket is closing; closes it if the queue is full.
    pub(super) fn push(&self, message: Utf8Bytes) -> bool {
        let mut state = self.lock();
        if state.closing.is_some() {
            return false;
        }
        if state.bytes > 0 && state.bytes.saturating_add(message.len()) > self.limit {
            let waiting = state.bytes;
            drop(state);
            tracing::warn!(
                "a websocket's client is too slow: {waiting} bytes wait for it, and no more may \
                 (WEBSOCKET_MAX_QUEUE); it is closed"
            );
            self.close(Closing::now(CloseCode::Policy, "too slow"));
            return false;
        }
        // Empty messages count too.
        state.bytes += message.len().max(1);
        state.messages.push_back(message);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Closes the socket. Only the first call has an effect.
    pub(super) fn close(&self, closing: Closing) {
        self.lock().closing.get_or_insert(closing);
        self.filled.notify_one();
        self.drained.notify_one();
        self.cut.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Returns `true` if the socket is closing for another reason than a gone peer.
    pub(super) fn is_closed_by_us(&self) -> bool {
        let state = self.lock();
        state
            .closing
            .as_ref()
            .is_some_and(|closing| closing.frame.is_some())
    }

    /// Returns the next item to send. Supports one caller at a time.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                self.drained.notify_one();
                return next;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.lock();
        match &state.closing {
            Some(closing) if !closing.drains => return Some(Next::Close(closing.clone())),
            _ => {}
        }
        match state.messages.pop_front() {
            Some(message) => {
                state.bytes = state.bytes.saturating_sub(message.len().max(1));
                Some(Next::Message(message))
            }
            None => state.closing.clone().map(Next::Close),
        }
    }

    /// Waits for a close without draining, to abort a pending send. Supports one caller at a time.
    pub(super) async fn cut(&self) -> Closing {
        loop {
            let closing = self
                .lock()
                .closing
                .clone()
                .filter(|closing| !closing.drains);
            if let Some(closing) = closing {
                return closing;
            }
            self.cut.notified().await;
        }
    }

    /// Waits until less than half of the limit is pending, or the socket is closing. Supports one
    /// caller at a time.
    pub(super) async fn room(&self) {
        loop {
            let full = {
                let state = self.lock();
                state.bytes > self.limit / 2 && state.closing.is_none()
            };
            if !full {
                return;
            }
            self.drained.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(outbox: &Outbox) -> Next {
        outbox.next().now_or_never().expect("something to send")
    }

    #[test]
    fn messages_are_sent_in_order_before_the_close() {
        let outbox = Outbox::new(10);
        assert!(outbox.push("one".into()) && outbox.push("two".into()));
        let closing = Closing::after_all(CloseCode::Away, "bye");
        outbox.close(closing.clone());
        assert!(!outbox.push("three".into()));
        assert!(outbox.cut().now_or_never().is_none());
        assert_eq!(take(&outbox), Next::Message("one".into()));
        assert_eq!(take(&outbox), Next::Message("two".into()));
        assert_eq!(take(&outbox), Next::Close(closing.clone()));
        // The first close wins.
        outbox.close(Closing::gone());
        assert_eq!(take(&outbox), Next::Close(closing));
    }

    #[test]
    fn a_socket_with_a_full_queue_is_closed() {
        let outbox = Outbox::new(10);
        assert!(outbox.push("a single one may be larger".into()));
        assert!(outbox.room().now_or_never().is_none());
        take(&outbox);
        assert!(outbox.room().now_or_never().is_some());
        assert!(outbox.push("1234567890".into()) && !outbox.push("1".into()));
        assert!(outbox.is_closing());
        assert!(outbox.cut().now_or_never().is_some());
        assert_eq!(
            take(&outbox),
            Next::Close(Closing::now(CloseCode::Policy, "too slow"))
        );
    }
}
