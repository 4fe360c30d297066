//! From an exchange to the queues.

use std::{sync::Arc, time::Instant};

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    binding::Destination,
    error::{AmqpError, Result},
    message::{Message, Name},
    vhost::{QueueId, State},
};

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// In one queue or more, or delivered.
    Routed,
    /// No queue wanted it.
    Unroutable,
    /// A queue that refuses when full did so.
    Refused,
}

impl State {
    /// Checks that one may publish to an exchange; gives its name to share.
    pub(crate) fn publishable(&self, exchange: &str) -> Result<Name> {
        let exchange = self.exchange_or_error(exchange)?;
        if exchange.internal {
            return Err(AmqpError::access_refused(format!(
                "cannot publish to internal {}",
                self.exchange_text(&exchange.name)
            )));
        }
        Ok(exchange.name.clone())
    }

    /// Routes a message and delivers it.
    pub(crate) fn publish(&mut self, message: Message, headers: Option<&FieldTable>) -> Published {
        let mut queues = Vec::with_capacity(1);
        self.route(
            &message.exchange,
            &message.routing_key,
            headers,
            &mut queues,
        );
        for key in copies(headers) {
            self.route(&message.exchange, &key, headers, &mut queues);
        }
        if queues.is_empty() {
            return Published::Unroutable;
        }
        let message = Arc::new(message);
        let mut outcome = Published::Routed;
        for queue in queues {
            if !self.enqueue(queue, message.clone()) {
                outcome = Published::Refused;
            }
        }
        outcome
    }

    /// Puts a message in a queue and delivers it; false when the queue refuses it.
    fn enqueue(&mut self, id: QueueId, message: Arc<Message>) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else {
            return true;
        };
        if queue.refuses(message.body.len()) {
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
            queue.drop_over_limit();
            queue.drop_expired(Instant::now);
        }
        self.schedule(id);
        true
    }

    /// Collects the queues a key leads to, each once, through exchanges bound to exchanges too.
    fn route(
        &self,
        exchange: &Name,
        key: &str,
        headers: Option<&FieldTable>,
        queues: &mut Vec<QueueId>,
    ) {
        if exchange.is_empty() {
            if let Some(id) = self.queue_ids.get(key)
                && !queues.contains(id)
            {
                queues.push(*id);
            }
            return;
        }
        let mut exchanges = vec![exchange.clone()];
        let mut next = 0;
        while let Some(name) = exchanges.get(next).cloned() {
            next += 1;
            let Some(exchange) = self.exchanges.get(&name) else {
                continue;
            };
            let mut matched = false;
            exchange.route(key, headers, |binding| {
                matched = true;
                match &binding.destination {
                    Destination::Queue(id) => {
                        if !queues.contains(id) {
                            queues.push(*id);
                        }
                    }
                    Destination::Exchange(name) => {
                        if !exchanges.contains(name) {
                            exchanges.push(name.clone());
                        }
                    }
                }
            });
            if !matched
                && let Some(alternate) = &exchange.alternate
                && !exchanges.contains(alternate)
            {
                exchanges.push(alternate.clone());
            }
        }
    }
}

/// More routing keys, from the `CC` header that RabbitMQ knows too.
fn copies(headers: Option<&FieldTable>) -> Vec<String> {
    let Some(AMQPValue::FieldArray(keys)) = headers.and_then(|headers| headers.inner().get("CC"))
    else {
        return Vec::new();
    };
    keys.as_slice()
        .iter()
        .filter_map(|key| match key {
            AMQPValue::LongString(key) => Some(key.to_string()),
            _ => None,
        })
        .collect()
}
