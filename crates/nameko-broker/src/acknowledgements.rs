//! Acknowledging, rejecting and recovering deliveries, and the limits on how many may be open.

use crate::{
    error::{AmqpError, Result},
    vhost::{ChannelId, QueueId, State, Unacked},
};

/// What becomes of deliveries that are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done with, by `basic.ack` or by a reject without requeue.
    Done,
    /// Back to their place in the queue.
    Requeue,
}

impl State {
    /// Settles one delivery or, with `multiple`, all up to it; tag 0 with `multiple` is all there are.
    pub(crate) fn settle(
        &mut self,
        channel: ChannelId,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<()> {
        let Some(on) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        if multiple && tag == 0 {
            let all = std::mem::take(&mut on.unacked);
            self.settle_all(channel, all.into_values().rev(), outcome);
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
            self.settle_all(channel, settled.into_values().rev(), outcome);
        } else if let Some(one) = on.unacked.remove(&tag) {
            self.settle_all(channel, std::iter::once(one), outcome);
        }
        Ok(())
    }

    /// Requeues everything the channel has not acknowledged.
    pub(crate) fn recover(&mut self, channel: ChannelId) {
        if let Some(on) = self.channels.get_mut(&channel) {
            let all = std::mem::take(&mut on.unacked);
            self.settle_all(channel, all.into_values().rev(), Outcome::Requeue);
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
            queue.drop_over_limit();
        }
        self.deliver(queue);
        self.schedule(queue);
    }

    /// Settles deliveries, the last one first, so that each goes back to the front of its queue.
    fn settle_all(
        &mut self,
        channel: ChannelId,
        settled: impl Iterator<Item = Unacked>,
        outcome: Outcome,
    ) {
        // Usually one queue, or a few; a list is quicker than a set.
        let mut queues: Vec<QueueId> = Vec::new();
        for unacked in settled {
            if let Some(id) = unacked.consumer {
                if let Some(on) = self.channels.get_mut(&channel) {
                    on.limited = on.limited.saturating_sub(1);
                }
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.unacked = consumer.unacked.saturating_sub(1);
                }
            }
            if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                if outcome == Outcome::Requeue {
                    queue.requeue(unacked.entry);
                }
                if !queue.is_empty() && !queues.contains(&unacked.queue) {
                    queues.push(unacked.queue);
                }
            }
        }
        for queue in queues {
            match outcome {
                Outcome::Done => self.deliver(queue),
                Outcome::Requeue => self.limit_and_deliver(queue),
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
}
