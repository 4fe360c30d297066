//! Publishing dead letters.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::state::VHostState;
use crate::{
    dead_letter::DeadLetter,
    x_death::{self, Reason},
};

/// Maximum number of dead letters published before the lock is released.
const MAX_DEAD_LETTERS_PER_FLUSH: usize = 100;

impl VHostState {
    /// Publishes pending dead letters and those that result from them, up to a limit. The timer
    /// continues with the rest.
    pub(crate) fn flush_dead_letters(&mut self) {
        for _ in 0..MAX_DEAD_LETTERS_PER_FLUSH {
            let Some(letter) = self.dead_letters.pop_front() else {
                return;
            };
            let others = self.dead_letters.len();
            self.publish_dead_letter(&letter);
            // Resulting dead letters go first, so that the backlog does not multiply from queue to
            // queue.
            for _ in others..self.dead_letters.len() {
                if let Some(last) = self.dead_letters.pop_back() {
                    self.dead_letters.push_front(last);
                }
            }
        }
        if !self.dead_letters.is_empty() {
            self.timer.notify_one();
        }
    }

    fn publish_dead_letter(&mut self, letter: &DeadLetter) {
        let Some(exchange) = self.exchanges.get(&letter.target.exchange) else {
            return;
        };
        let exchange = exchange.name.clone();
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let Some((message, headers)) = letter.republish(exchange, time) else {
            tracing::warn!(queue = %letter.queue, "dropping a dead letter: headers too large");
            return;
        };
        self.send_direct_replies(&message);
        let mut queues = Vec::with_capacity(1);
        self.route(&message, Some(&headers), &mut queues);
        if letter.reason != Reason::Rejected {
            queues.retain(|id| {
                let cycle = self
                    .queues
                    .get(id)
                    .is_some_and(|queue| x_death::is_cycle(&headers, &queue.name));
                if cycle {
                    tracing::debug!(queue = %letter.queue, "dead-letter cycle ends here");
                }
                !cycle
            });
        }
        let message = Arc::new(message);
        for queue in queues {
            self.enqueue(queue, message.clone());
        }
    }
}
