//! Acknowledging, rejecting and recovering deliveries; prefetch limits.

use super::state::VHostState;
use crate::{
    channel_consumers::{Settlement, Unacked},
    error::{AmqpError, Result},
    ids::{ChannelId, QueueId},
    x_death::Reason,
};

impl VHostState {
    /// Settles one delivery or, with `multiple`, all deliveries up to it. Tag 0 with `multiple`
    /// settles all. A transactional channel holds the settlement until its commit.
    pub(crate) fn settle(
        &mut self,
        channel_id: ChannelId,
        tag: u64,
        multiple: bool,
        settlement: Settlement,
    ) -> Result<()> {
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        if multiple && tag == 0 {
            let all = std::mem::take(&mut channel.unacked);
            self.settle_or_hold(channel_id, all.into_iter(), settlement);
            return Ok(());
        }
        if !channel.unacked.contains_key(&tag) {
            return Err(AmqpError::precondition_failed(format!(
                "unknown delivery tag {tag}"
            )));
        }
        if multiple {
            let later = channel.unacked.split_off(&tag.saturating_add(1));
            let settled = std::mem::replace(&mut channel.unacked, later);
            self.settle_or_hold(channel_id, settled.into_iter(), settlement);
        } else if let Some(one) = channel.unacked.remove(&tag) {
            self.settle_or_hold(channel_id, std::iter::once((tag, one)), settlement);
        }
        Ok(())
    }

    fn settle_or_hold(
        &mut self,
        channel_id: ChannelId,
        settled: impl DoubleEndedIterator<Item = (u64, Unacked)>,
        settlement: Settlement,
    ) {
        let channel = self.channels.get_mut(&channel_id);
        match channel.and_then(|channel| channel.transaction.as_mut()) {
            Some(transaction) => transaction.settle(settled, settlement),
            None => {
                let settled = settled.map(|(_, unacked)| unacked);
                self.settle_deliveries(channel_id, settled, settlement);
            }
        }
    }

    /// Requeues all unacknowledged deliveries of the channel.
    pub(crate) fn recover(&mut self, channel_id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            let all = std::mem::take(&mut channel.unacked);
            self.settle_deliveries(channel_id, all.into_values(), Settlement::Requeue);
        }
    }

    /// Sets the prefetch limit of future consumers.
    pub(crate) fn set_consumer_prefetch(&mut self, channel_id: ChannelId, count: u16) {
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            channel.consumer_prefetch = count;
            channel.global_prefetch = 0;
        }
        self.deliver_to_channel(channel_id);
    }

    /// Sets the prefetch limit of the whole channel.
    pub(crate) fn set_global_prefetch(&mut self, channel_id: ChannelId, count: u16) {
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            channel.global_prefetch = count;
        }
        self.deliver_to_channel(channel_id);
    }

    /// Enforces the length limits of a queue after messages were requeued, then delivers the rest,
    /// in RabbitMQ's order.
    pub(crate) fn enforce_limits_and_deliver(&mut self, queue: QueueId) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.drop_over_limit(&mut self.dead_letters);
        }
        self.deliver(queue);
        self.schedule(queue);
    }

    /// Requeues deliveries, given in delivery order, and returns their queues. Delivers nothing
    /// yet.
    pub(crate) fn requeue_deliveries(
        &mut self,
        deliveries: impl DoubleEndedIterator<Item = Unacked>,
        channel_closes: bool,
    ) -> Vec<QueueId> {
        // Usually one or a few queues, for which a list is faster than a set.
        let mut queues: Vec<QueueId> = Vec::new();
        let mut counted = Vec::new();
        // In reverse, so that each message is inserted at the front.
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
                queue.return_delivery(unacked.entry, last, &mut self.dead_letters);
            }
        }
        queues
    }

    /// Settles deliveries, given in delivery order.
    pub(super) fn settle_deliveries(
        &mut self,
        channel_id: ChannelId,
        settled: impl DoubleEndedIterator<Item = Unacked>,
        settlement: Settlement,
    ) {
        if settlement == Settlement::Requeue {
            let settled: Vec<Unacked> = settled
                .inspect(|unacked| self.release_prefetch(channel_id, unacked))
                .collect();
            for queue in self.requeue_deliveries(settled.into_iter(), false) {
                self.enforce_limits_and_deliver(queue);
            }
        } else {
            let mut queues: Vec<QueueId> = Vec::new();
            for unacked in settled {
                self.release_prefetch(channel_id, &unacked);
                let Some(queue) = self.queues.get_mut(&unacked.queue) else {
                    continue;
                };
                if settlement == Settlement::Reject {
                    queue.dead_letter(
                        unacked.entry.message,
                        Reason::Rejected,
                        &mut self.dead_letters,
                    );
                }
                if !queue.is_empty() && !queues.contains(&unacked.queue) {
                    queues.push(unacked.queue);
                }
            }
            for queue in queues {
                self.deliver(queue);
            }
        }
        // Capacity freed on the channel may unblock its other consumers.
        if self
            .channels
            .get(&channel_id)
            .is_some_and(|channel| channel.global_prefetch > 0)
        {
            self.deliver_to_channel(channel_id);
        }
    }

    /// Removes a delivery from the prefetch counts of its channel and consumer.
    fn release_prefetch(&mut self, channel_id: ChannelId, unacked: &Unacked) {
        let Some(id) = unacked.consumer else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            channel.prefetch_used = channel.prefetch_used.saturating_sub(1);
        }
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
        }
    }
}
