//! Batching of the replies that short jobs publish one after the other.

use nameko::amqp::Unsent;

/// The number of replies that are flushed together at most.
const MAX_BATCHED_REPLIES: u32 = 8;

/// Replies that are encoded and held back, to be flushed with the next ones on their connection.
#[derive(Default)]
pub(crate) struct ReplyBatch {
    held: Option<(Unsent, u32)>,
}

impl ReplyBatch {
    /// Adds a reply and returns the ones to flush now: none while the batch may grow.
    pub(crate) fn add(&mut self, reply: Option<Unsent>, may_grow: bool) -> [Option<Unsent>; 2] {
        let (held, count) = self.held.take().unzip();
        let count = count.unwrap_or(0) + 1;
        match reply {
            Some(reply)
                if may_grow
                    && count < MAX_BATCHED_REPLIES
                    && held
                        .as_ref()
                        .is_none_or(|held| held.shares_connection(&reply)) =>
            {
                self.held = Some((reply, count));
                [None, None]
            }
            reply => [held, reply],
        }
    }

    /// Takes the replies that are held back, to flush them.
    pub(crate) fn take(&mut self) -> Option<Unsent> {
        self.held.take().map(|(held, _)| held)
    }
}
