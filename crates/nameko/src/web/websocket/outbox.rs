//! What waits to be sent to one socket.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Utf8Bytes, protocol::frame::coding::CloseCode};

/// In bytes. A close has 125, two of them for the code. Source: RFC 6455, section 5.5.
const LONGEST_REASON: usize = 123;

/// Messages for one socket, in order, and how it ends.
///
/// Bounded: a socket that does not read is closed rather than remembered for.
pub(super) struct Outbox {
    /// The most bytes that may wait. A single message may be larger.
    limit: usize,
    state: Mutex<State>,
    /// Told when there is something to send.
    filled: Notify,
    /// Told when something was taken.
    drained: Notify,
    /// Told when the socket is to be closed at once.
    cut: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// Set once: nothing more is taken.
    closing: Option<Closing>,
}

/// How a socket is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    /// What the peer is told; nothing, where it is gone.
    pub(super) frame: Option<(CloseCode, String)>,
    /// Whether what waits is sent before.
    pub(super) drains: bool,
}

impl Closing {
    /// After all that waits was sent. A long reason is cut.
    pub(super) fn after_all(code: CloseCode, reason: &str) -> Self {
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        Self {
            frame: Some((code, reason)),
            drains: true,
        }
    }

    /// At once.
    pub(super) fn now(code: CloseCode, reason: &str) -> Self {
        Self {
            drains: false,
            ..Self::after_all(code, reason)
        }
    }

    /// The peer is gone.
    pub(super) fn gone() -> Self {
        Self {
            frame: None,
            drains: false,
        }
    }
}

/// What to send next.
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

    /// Adds a message. `false` when the socket is closing, or when too much waits: then it is closed for that.
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
        // An empty message counts too.
        state.bytes += message.len().max(1);
        state.messages.push_back(message);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Closes the socket. The first reason counts.
    pub(super) fn close(&self, closing: Closing) {
        self.lock().closing.get_or_insert(closing);
        self.filled.notify_one();
        self.drained.notify_one();
        self.cut.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Whether the socket is closing, and not because its peer is gone.
    pub(super) fn is_closed_by_us(&self) -> bool {
        let state = self.lock();
        state.closing.as_ref().is_some_and(|it| it.frame.is_some())
    }

    /// The next thing to send. One caller at a time.
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

    /// Returns when the socket is to be closed at once, whatever is being sent. One caller at a time.
    pub(super) async fn cut(&self) -> Closing {
        loop {
            let closing = self.lock().closing.clone().filter(|it| !it.drains);
            if let Some(closing) = closing {
                return closing;
            }
            self.cut.notified().await;
        }
    }

    /// Returns when less than half of what may wait does, or the socket is closing. One caller at a time.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn messages_go_out_in_order_and_the_close_comes_last() {
        let outbox = Outbox::new(10);
        assert!(outbox.push("one".into()) && outbox.push("two".into()));
        let closing = Closing::after_all(CloseCode::Away, "bye");
        outbox.close(closing.clone());
        assert!(!outbox.push("three".into()));
        assert!(outbox.cut().now_or_never().is_none());
        assert_eq!(take(&outbox), Next::Message("one".into()));
        assert_eq!(take(&outbox), Next::Message("two".into()));
        assert_eq!(take(&outbox), Next::Close(closing.clone()));
        // The first reason counts.
        outbox.close(Closing::gone());
        assert_eq!(take(&outbox), Next::Close(closing));
    }

    #[test]
    fn a_socket_for_which_too_much_waits_is_closed_at_once() {
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
