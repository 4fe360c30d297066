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

/// How many are dealt with before others get the virtual host again.
const MAX_DEAD_LETTERS_PER_FLUSH: usize = 100;

impl VHostState {
    /// Publishes the dead letters that are there and what they lead to, up to a number. The timer goes on with the rest.
    pub(crate) fn flush_dead_letters(&mut self) {
        for _ in 0..MAX_DEAD_LETTERS_PER_FLUSH {
            let Some(letter) = self.dead_letters.pop_front() else {
                return;
            };
            let others = self.dead_letters.len();
            self.publish_dead_letter(&letter);
            // What died of it is next, so that what waits does not multiply from queue to queue.
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
        let by_itself = matches!(letter.reason, Reason::Expired | Reason::MaxLength);
        let deaths = if by_itself {
            letter.message.automatic_deaths + 1
        } else {
            0
        };
        // The header tells of circles, but clients can write it. Who died oftener than there are queues goes round.
        if deaths > self.queues.len() {
            tracing::warn!(queue = %letter.queue, "a message that goes round in a circle of dead letters is dropped");
            return;
        }
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let Some((mut message, headers)) = letter.republish(exchange, time) else {
            tracing::warn!(queue = %letter.queue, "a dead letter is dropped: its headers have grown too large");
            return;
        };
        message.automatic_deaths = deaths;
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
                    tracing::debug!(queue = %letter.queue, "a circle of dead letters ends here");
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
