//! Acknowledging, rejecting and recovering deliveries, and the limits on how many may be open.

use crate::{
    error::{AmqpError, Result},
    vhost::{ChannelId, QueueId, Unacked, VHostState},
    x_death::Reason,
};

/// What becomes of deliveries that are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Done with, by `basic.ack`.
    Done,
    /// Not wanted: dead letters, where the queue has such.
    Reject,
    /// Back to their place in the queue.
    Requeue,
}

impl VHostState {
    /// Settles one delivery or, with `multiple`, all up to it; tag 0 with `multiple` is all there are.
    pub(crate) fn settle(
        &mut self,
        channel: ChannelId,
        tag: u64,
        multiple: bool,
        outcome: Settlement,
    ) -> Result<()> {
        let Some(on) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        if multiple && tag == 0 {
            let all = std::mem::take(&mut on.unacked);
            self.settle_all(channel, all.into_values(), outcome);
            return Ok(());
        }
        if !on.unacked.contains_key(&tag) {
            return Err(AmqpError::precondition_failed(format!(
                "unknown delivery tag {tag}"
            )));
        }
        if multiple {
            let later = on.unacked.split_off(&tag.saturating_add(1));
            let settled = std::mem::replace(&mut on.unacked, later);
            self.settle_all(channel, settled.into_values(), outcome);
        } else if let Some(one) = on.unacked.remove(&tag) {
            self.settle_all(channel, std::iter::once(one), outcome);
        }
        Ok(())
    }

    /// Requeues everything the channel has not acknowledged.
    pub(crate) fn recover(&mut self, channel: ChannelId) {
        if let Some(on) = self.channels.get_mut(&channel) {
            let all = std::mem::take(&mut on.unacked);
            self.settle_all(channel, all.into_values(), Settlement::Requeue);
        }
    }

    /// Sets the limit for consumers to come.
    pub(crate) fn set_consumer_prefetch(&mut self, channel: ChannelId, count: u16) {
        if let Some(on) = self.channels.get_mut(&channel) {
            on.consumer_prefetch = count;
            on.global_prefetch = 0;
        }
        self.deliver_to_channel(channel);
    }

    /// Sets the limit for the whole channel.
    pub(crate) fn set_global_prefetch(&mut self, channel: ChannelId, count: u16) {
        if let Some(on) = self.channels.get_mut(&channel) {
            on.global_prefetch = count;
        }
        self.deliver_to_channel(channel);
    }

    /// Keeps the limits of a queue that got messages back, as RabbitMQ before it delivers, then delivers what is left.
    pub(crate) fn limit_and_deliver(&mut self, queue: QueueId) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.drop_over_limit(&mut self.dead);
        }
        self.deliver(queue);
        self.schedule(queue);
    }

    /// Puts deliveries, in the order they were made, back into their queues; gives those queues. Nothing is delivered yet.
    pub(crate) fn give_back(
        &mut self,
        deliveries: impl DoubleEndedIterator<Item = Unacked>,
        channel_closes: bool,
    ) -> Vec<QueueId> {
        // Usually one queue, or a few; a list is quicker than a set.
        let mut queues: Vec<QueueId> = Vec::new();
        let mut counted = Vec::new();
        // The last one first, so that each goes to the front.
        for unacked in deliveries.rev() {
            let Some(queue) = self.queues.get_mut(&unacked.queue) else {
                continue;
            };
            if !queues.contains(&unacked.queue) {
                queues.push(unacked.queue);
            }
            if queue.is_quorum() {
                counted.push(unacked);
            } else {
                queue.requeue(unacked.entry);
            }
        }
        for unacked in counted.into_iter().rev() {
            if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                let last = !channel_closes && queue.arguments.delivery_limit.is_none();
                queue.give_back(unacked.entry, last, &mut self.dead);
            }
        }
        queues
    }

    /// Settles deliveries, given in the order they were made.
    fn settle_all(
        &mut self,
        channel: ChannelId,
        settled: impl DoubleEndedIterator<Item = Unacked>,
        outcome: Settlement,
    ) {
        if outcome == Settlement::Requeue {
            let settled: Vec<Unacked> = settled
                .inspect(|unacked| self.uncount(channel, unacked))
                .collect();
            for queue in self.give_back(settled.into_iter(), false) {
                self.limit_and_deliver(queue);
            }
        } else {
            let mut queues: Vec<QueueId> = Vec::new();
            for unacked in settled {
                self.uncount(channel, &unacked);
                let Some(queue) = self.queues.get_mut(&unacked.queue) else {
                    continue;
                };
                if outcome == Settlement::Reject {
                    queue.die(unacked.entry.message, Reason::Rejected, &mut self.dead);
                }
                if !queue.is_empty() && !queues.contains(&unacked.queue) {
                    queues.push(unacked.queue);
                }
            }
            for queue in queues {
                self.deliver(queue);
            }
        }
        // A place freed on the channel lets its other consumers go on too.
        if self
            .channels
            .get(&channel)
            .is_some_and(|on| on.global_prefetch > 0)
        {
            self.deliver_to_channel(channel);
        }
    }

    /// Takes a delivery from the counts of its channel and consumer.
    fn uncount(&mut self, channel: ChannelId, unacked: &Unacked) {
        let Some(id) = unacked.consumer else {
            return;
        };
        if let Some(on) = self.channels.get_mut(&channel) {
            on.limited = on.limited.saturating_sub(1);
        }
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
        }
    }
}
