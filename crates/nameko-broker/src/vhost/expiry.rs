//! Expiry of messages and queues.
//!
//! Each queue has at most one entry in the virtual host's ordered set of deadlines. One task sleeps
//! until the first of them.

use std::time::Instant;

use super::state::VHostState;
use crate::ids::QueueId;

impl VHostState {
    /// Schedules the expiry of a queue.
    ///
    /// A deadline is only ever moved to an earlier time here. One that turns out to be too early is
    /// corrected when it fires, so a busy queue costs nothing.
    pub(crate) fn schedule(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(next) = queue.next_deadline() else {
            return;
        };
        if let Some(deadline) = queue.deadline {
            if deadline <= next {
                return;
            }
            self.deadlines.remove(&(deadline, id));
        }
        queue.deadline = Some(next);
        let first = self.deadlines.first().is_none_or(|(at, _)| next < *at);
        self.deadlines.insert((next, id));
        if first {
            self.timer.notify_one();
        }
    }

    /// Expires everything that is due. Returns the next deadline.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                return Some(at);
            }
            self.deadlines.pop_first();
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            queue.deadline = None;
            queue.drop_expired(|| now, &mut self.dead_letters);
            if queue.expires_at().is_some_and(|at| at <= now) {
                self.delete_queue(id);
            } else {
                self.schedule(id);
            }
        }
        None
    }
}
