//! From an exchange to the queues.

use std::{collections::HashSet, sync::Arc, time::Instant};

use amq_protocol::{protocol::basic::AMQPProperties, types::FieldTable};
use bytes::Bytes;

use super::state::VHostState;
use crate::{
    arguments::expiration,
    binding::Destination,
    direct_reply::requests_direct_reply,
    error::{AmqpError, Result},
    headers::{Headers, cc_keys, without_bcc},
    ids::{ChannelId, QueueId},
    message::Message,
    name::Name,
};

/// From so many queues on a list of them is slower than a set.
const MAX_LINEAR_SCAN: usize = 32;

/// A message as somebody publishes it.
#[derive(Debug)]
pub(crate) struct IncomingPublish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: String,
    pub(crate) properties: &'a AMQPProperties,
    /// The content header's payload.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// Who publishes it, where.
    pub(crate) user: &'a str,
    pub(crate) channel: ChannelId,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// In one queue or more, or delivered.
    Routed,
    /// No queue wanted it.
    Unroutable,
    /// A queue that rejects when full did so.
    Rejected,
}

impl VHostState {
    /// Checks that one may publish to an exchange; gives its name to share.
    pub(crate) fn publish_target(&self, exchange: &str) -> Result<Name> {
        let exchange = self.exchange_or_error(exchange)?;
        if exchange.internal {
            return Err(AmqpError::access_refused(format!(
                "cannot publish to internal {}",
                self.exchange_text(&exchange.name)
            )));
        }
        Ok(exchange.name.clone())
    }

    /// Checks a message; gives it as it is to be routed.
    pub(crate) fn validate_publish(&self, incoming: IncomingPublish<'_>) -> Result<Message> {
        let exchange = self.publish_target(incoming.exchange)?;
        let properties = incoming.properties;
        if let Some(claimed) = properties.user_id()
            && claimed.as_str() != incoming.user
        {
            return Err(AmqpError::precondition_failed(format!(
                "user_id property set to '{claimed}' but authenticated user was '{}'",
                incoming.user
            )));
        }
        let expiration = properties
            .expiration()
            .as_ref()
            .map(|text| expiration(text.as_str()))
            .transpose()?;
        if let Some(mode @ (0 | 3..)) = *properties.delivery_mode() {
            return Err(AmqpError::precondition_failed(format!(
                "invalid message: {{delivery_mode_unknown,{mode}}}"
            )));
        }
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        let cc_keys = cc_keys(headers)?;
        let mut header = incoming.header;
        if requests_direct_reply(properties.reply_to().as_ref()) {
            header = self.with_reply_address(incoming.channel, &header)?;
        }
        if headers.is_some_and(|headers| headers.contains_key("BCC")) {
            header = without_bcc(&header)?;
        }
        Ok(Message {
            exchange,
            routing_key: incoming.routing_key.into(),
            cc_keys,
            header,
            body: incoming.body,
            expiration,
            priority: properties.priority().unwrap_or_default(),
            automatic_deaths: 0,
        })
    }

    /// Routes a message and delivers it.
    pub(crate) fn publish(&mut self, message: Message, headers: Option<&Headers>) -> Published {
        self.send_direct_replies(&message);
        let mut queues = Vec::with_capacity(1);
        self.route(&message, headers, &mut queues);
        if queues.is_empty() {
            return Published::Unroutable;
        }
        let message = Arc::new(message);
        let mut outcome = Published::Routed;
        for queue in queues {
            if !self.enqueue(queue, message.clone()) {
                outcome = Published::Rejected;
            }
        }
        outcome
    }

    /// Puts a message in a queue and delivers it; false when the queue rejects it.
    pub(crate) fn enqueue(&mut self, id: QueueId, message: Arc<Message>) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else {
            return true;
        };
        if queue.rejects(message.body.len()) {
            queue.reject(message, &mut self.dead_letters);
            return false;
        }
        // With a backlog no consumer can take anything, or there would be none.
        let backlog = !queue.is_empty();
        queue.push(message, Instant::now);
        // One that expires at once still goes to a consumer that waits.
        if !backlog && self.deliver_one(id) {
            return true;
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            return true;
        };
        if !queue.is_empty() {
            queue.drop_over_limit(&mut self.dead_letters);
            queue.drop_expired(Instant::now, &mut self.dead_letters);
        }
        self.schedule(id);
        true
    }

    /// Collects the queues a message's keys lead to, each once, through exchanges bound to exchanges too.
    pub(crate) fn route(
        &self,
        message: &Message,
        headers: Option<&Headers>,
        queues: &mut Vec<QueueId>,
    ) {
        let keys = || std::iter::once(&message.routing_key).chain(&message.cc_keys);
        if message.exchange.is_empty() {
            for key in keys() {
                if let Some(id) = self.queue_ids.get(key) {
                    push_unique(queues, *id);
                }
            }
            dedup_long(queues);
            return;
        }
        let mut exchanges = vec![message.exchange.clone()];
        let mut next = 0;
        while let Some(name) = exchanges.get(next).cloned() {
            next += 1;
            let Some(exchange) = self.exchanges.get(&name) else {
                continue;
            };
            let mut matched = false;
            for key in keys() {
                exchange.route(key, headers, |binding| {
                    matched = true;
                    match &binding.destination {
                        Destination::Queue(id) => push_unique(queues, *id),
                        Destination::Exchange(name) => {
                            if !exchanges.contains(name) {
                                exchanges.push(name.clone());
                            }
                        }
                    }
                });
            }
            if !matched
                && let Some(alternate) = &exchange.alternate
                && !exchanges.contains(alternate)
            {
                exchanges.push(alternate.clone());
            }
        }
        dedup_long(queues);
    }
}

/// Adds a queue to a list; where that is long, [`dedup_long`] looks later whether it was there.
fn push_unique(queues: &mut Vec<QueueId>, id: QueueId) {
    if queues.len() >= MAX_LINEAR_SCAN || !queues.contains(&id) {
        queues.push(id);
    }
}

/// Removes from a list what was in it before.
fn dedup_long(queues: &mut Vec<QueueId>) {
    if queues.len() > MAX_LINEAR_SCAN {
        let mut seen = HashSet::with_capacity(queues.len());
        queues.retain(|id| seen.insert(*id));
    }
}
