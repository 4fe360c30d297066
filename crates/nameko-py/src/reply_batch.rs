//! Batching of the replies that short jobs publish one after the other.

use std::sync::Arc;

use nameko::amqp::Unsent;

use crate::web::outbox::Outbox;

/// The number of replies that are flushed together at most.
const MAX_BATCHED_REPLIES: u32 = 8;

/// Replies that are held back on one connection, or in one web server.
#[derive(Clone)]
pub(crate) enum Held {
    Published(Unsent),
    Responses(Arc<Outbox>),
}

impl Held {
    /// Whether both are flushed together.
    pub(crate) fn flushes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Held::Published(left), Held::Published(right)) => left.shares_connection(right),
            (Held::Responses(left), Held::Responses(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }

    pub(crate) fn flush(self) {
        match self {
            Held::Published(unsent) => unsent.flush(),
            Held::Responses(outbox) => outbox.flush(),
        }
    }
}

/// Replies that are encoded and held back, to be flushed with the next ones of their kind.
#[derive(Default)]
pub(crate) struct ReplyBatch {
    held: Option<(Held, u32)>,
}

impl ReplyBatch {
    /// Adds a reply and returns the ones to flush now: none while the batch may grow.
    pub(crate) fn add(&mut self, reply: Option<Held>, may_grow: bool) -> [Option<Held>; 2] {
        let (held, count) = self.held.take().unzip();
        let count = count.unwrap_or(0) + 1;
        match reply {
            Some(reply)
                if may_grow
                    && count < MAX_BATCHED_REPLIES
                    && held.as_ref().is_none_or(|held| held.flushes_with(&reply)) =>
            {
                self.held = Some((reply, count));
                [None, None]
            }
            reply => [held, reply],
        }
    }

    /// Takes the replies that are held back, to flush them.
    pub(crate) fn take(&mut self) -> Option<Held> {
        self.held.take().map(|(held, _)| held)
    }
}
