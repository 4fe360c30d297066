//! Dead letters: messages to be republished after they left a queue unacknowledged.

use std::sync::Arc;

use crate::{
    arguments::DeadLetterTarget,
    headers::{self, Headers, cc_keys, without_expiration},
    message::Message,
    name::Name,
    x_death::{self, Death, Reason},
};

/// A message to be republished.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    /// The queue that the message left.
    pub(crate) queue: Name,
    pub(crate) target: DeadLetterTarget,
    pub(crate) message: Arc<Message>,
    pub(crate) reason: Reason,
}

impl DeadLetter {
    /// Returns the message to publish, with its headers, or `None` if the headers become too large.
    pub(crate) fn republish(&self, exchange: Name, time: u64) -> Option<(Message, Headers)> {
        let was = &self.message;
        let mut all = Headers::new();
        let header = headers::rewrite(&was.header, |properties, headers| {
            let expiration = properties.expiration().clone();
            // The BCC header was removed on publish, so `x-death` does not reveal those keys. The
            // CC header stays when a dead-letter routing key replaces all keys.
            let copied = match was.cc_keys.is_empty() {
                true => Vec::new(),
                false => cc_keys(Some(headers)).unwrap_or_default(),
            };
            let mut keys = vec![&*was.routing_key];
            keys.extend(copied.iter().map(|key| &**key));
            let death = Death {
                reason: self.reason,
                queue: &self.queue,
                exchange: &was.exchange,
                keys,
                expiration: expiration.as_ref().map(|text| text.as_str()),
                time,
            };
            x_death::record(headers, &death, was.dead_lettered);
            all.clone_from(headers);
            without_expiration(properties)
        })?;
        let (routing_key, cc_keys) = match &self.target.key {
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
            dead_lettered: true,
        };
        Some((message, all))
    }
}
