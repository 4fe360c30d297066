//! Dead letters: what leaves a queue without being acknowledged is published again where the queue says.

use std::sync::Arc;

use crate::{
    arguments::DeadLetterTarget,
    headers::{self, Headers, cc_keys, without_expiration},
    message::Message,
    name::Name,
    x_death::{self, Death, Reason},
};

/// A message that is to be published again.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    /// The queue it left.
    pub(crate) queue: Name,
    pub(crate) target: DeadLetterTarget,
    pub(crate) message: Arc<Message>,
    pub(crate) reason: Reason,
}

impl DeadLetter {
    /// The message a dead letter becomes, with its headers; `None` when those are too large.
    pub(crate) fn republish(&self, exchange: Name, time: u64) -> Option<(Message, Headers)> {
        let was = &self.message;
        let mut all = Headers::new();
        let header = headers::rewrite(&was.header, |properties, headers| {
            let expiration = properties.expiration().clone();
            // The blind ones are not in the headers any more, and so not told of.
            let told = cc_keys(Some(headers)).unwrap_or_default();
            let mut keys = vec![&*was.routing_key];
            keys.extend(told.iter().map(|key| &**key));
            let death = Death {
                reason: self.reason,
                queue: &self.queue,
                exchange: &was.exchange,
                keys,
                expiration: expiration.as_ref().map(|text| text.as_str()),
                time,
            };
            x_death::record(headers, &death);
            if self.target.key.is_some() {
                headers.remove("CC");
            }
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
            automatic_deaths: 0,
        };
        Some((message, all))
    }
}
