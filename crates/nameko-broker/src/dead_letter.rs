//! Dead letters: what leaves a queue without being acknowledged is published again where the queue says.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    arguments::DeadLetterTarget,
    headers::{self, Headers, without_expiration},
    message::{Message, Name},
    publish::cc_keys,
    vhost::VHostState,
    x_death::{self, Death, Reason},
};

/// How many are dealt with before others get the virtual host again.
const MAX_DEAD_LETTERS_PER_FLUSH: usize = 100;

/// A message that is to be published again.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    /// The queue it left.
    pub(crate) queue: Name,
    pub(crate) target: DeadLetterTarget,
    pub(crate) message: Arc<Message>,
    pub(crate) reason: Reason,
}

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
        let Some((mut message, headers)) = republished(letter, exchange, time) else {
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

/// The message a dead letter becomes, with its headers; `None` when those are too large.
fn republished(letter: &DeadLetter, exchange: Name, time: u64) -> Option<(Message, Headers)> {
    let was = &letter.message;
    let mut all = Headers::new();
    let header = headers::rewrite(&was.header, |properties, headers| {
        let expiration = properties.expiration().clone();
        // The blind ones are not in the headers any more, and so not told of.
        let told = cc_keys(Some(headers)).unwrap_or_default();
        let mut keys = vec![&*was.routing_key];
        keys.extend(told.iter().map(|key| &**key));
        let death = Death {
            reason: letter.reason,
            queue: &letter.queue,
            exchange: &was.exchange,
            keys,
            expiration: expiration.as_ref().map(|text| text.as_str()),
            time,
        };
        x_death::record(headers, &death);
        if letter.target.key.is_some() {
            headers.remove("CC");
        }
        all.clone_from(headers);
        without_expiration(properties)
    })?;
    let (routing_key, cc_keys) = match &letter.target.key {
        Some(key) => (key.clone(), Vec::new()),
        None => (was.routing_key.clone(), was.cc_keys.clone()),
    };
    let message = Message {
        exchange,
        routing_key,
        cc_keys,
        header,
        body: was.body.clone(),
        expiration: None,
        priority: was.priority,
        automatic_deaths: 0,
    };
    Some((message, all))
}
