//! Routing and enqueueing of published messages.

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

/// Number of queues above which deduplication uses a set instead of a list.
const MAX_LINEAR_SCAN: usize = 32;

/// A message to be published.
#[derive(Debug)]
pub(crate) struct IncomingPublish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: String,
    pub(crate) properties: &'a AMQPProperties,
    /// Payload of the content header.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// Authenticated user of the publisher.
    pub(crate) user: &'a str,
    pub(crate) channel: ChannelId,
}

/// Outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Enqueued in or delivered from at least one queue.
    Routed,
    /// Matched no queue.
    Unroutable,
    /// Rejected by at least one full queue.
    Rejected,
}

impl VHostState {
    /// Checks that an exchange accepts messages, and returns its shared name.
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

    /// Validates a message and prepares it for routing.
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
            dead_lettered: false,
        })
    }

    /// Routes and delivers a message.
    pub(crate) fn publish(&mut self, message: Message, headers: Option<&Headers>) -> Published {
        self.send_direct_replies(&message);
        let mut queues = Vec::with_capacity(1);
        self.route(&message, headers, &mut queues);
        self.enqueue_all(message, queues)
    }

    /// Enqueues and delivers a message to all queues that it was routed to.
    pub(crate) fn enqueue_all(&mut self, message: Message, queues: Vec<QueueId>) -> Published {
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

    /// Enqueues and delivers a message. Returns `false` if the queue rejects it.
    pub(crate) fn enqueue(&mut self, id: QueueId, message: Arc<Message>) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else {
            return true;
        };
        if queue.rejects(message.body.len()) {
            queue.reject(message, &mut self.dead_letters);
            return false;
        }
        // A backlog means that no consumer can receive a message now.
        let backlog = !queue.is_empty();
        queue.push(message, Instant::now);
        // A message that expires at once is still delivered to a waiting consumer.
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

    /// Collects the queues for a message's routing keys, without duplicates, also through bindings
    /// between exchanges.
    pub(crate) fn route(
        &self,
        message: &Message,
        headers: Option<&Headers>,
        queues: &mut Vec<QueueId>,
    ) {
        if message.exchange.is_empty() {
            self.add_queues_named(message.routing_keys(), queues);
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
            for key in message.routing_keys() {
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

    /// Returns the existing queues with these names, without duplicates.
    pub(crate) fn queues_named(&self, names: &[Name]) -> Vec<QueueId> {
        let mut queues = Vec::with_capacity(names.len());
        self.add_queues_named(names.iter(), &mut queues);
        queues
    }

    fn add_queues_named<'a>(
        &self,
        names: impl Iterator<Item = &'a Name>,
        queues: &mut Vec<QueueId>,
    ) {
        for name in names {
            if let Some(id) = self.queue_ids.get(name) {
                push_unique(queues, *id);
            }
        }
        dedup_long(queues);
    }
}

/// Adds a queue. Long lists are deduplicated later, by [`dedup_long`].
fn push_unique(queues: &mut Vec<QueueId>, id: QueueId) {
    if queues.len() >= MAX_LINEAR_SCAN || !queues.contains(&id) {
        queues.push(id);
    }
}

/// Removes duplicates from a long list, keeping the first of each.
fn dedup_long(queues: &mut Vec<QueueId>) {
    if queues.len() > MAX_LINEAR_SCAN {
        let mut seen = HashSet::with_capacity(queues.len());
        queues.retain(|id| seen.insert(*id));
    }
}
