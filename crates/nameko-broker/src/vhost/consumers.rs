//! Consumers and the delivery of messages to them.

use std::{collections::HashMap, sync::atomic::Ordering, time::Instant};

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::FieldTable,
};

use super::state::VHostState;
use crate::{
    arguments::consumer_priority,
    channel_consumers::{ChannelConsumers, Unacked},
    consumer::Consumer,
    error::{AmqpError, Result},
    ids::{ChannelId, ConsumerId, QueueId},
    message::Entry,
    name::short_string,
    queue::Queue,
    round_robin::RoundRobin,
};

/// Parameters of `basic.consume`.
#[derive(Debug)]
pub(crate) struct ConsumeRequest<'a> {
    pub(crate) queue: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) nowait: bool,
    pub(crate) table: FieldTable,
}

impl VHostState {
    /// Adds a consumer, replies to the client and starts delivering.
    pub(crate) fn consume(
        &mut self,
        channel_id: ChannelId,
        request: &ConsumeRequest<'_>,
    ) -> Result<()> {
        let Some(channel) = self.channels.get(&channel_id) else {
            return Ok(());
        };
        let tag = channel.new_consumer_tag(request.tag)?;
        let connection = channel.send_buffer.connection;
        let limited = channel.global_prefetch > 0;
        let queue_id = self.queue_for(request.queue, connection)?;
        let priority = self.check_consume(queue_id, request, limited)?;
        let id = ConsumerId(self.next_id());
        let (Some(channel), Some(queue)) = (
            self.channels.get_mut(&channel_id),
            self.queues.get_mut(&queue_id),
        ) else {
            return Ok(());
        };
        channel.consumers.insert(tag.clone(), id);
        queue.consumers.add(id, priority);
        if request.exclusive && !queue.is_quorum() {
            queue.exclusive_consumer = Some(id);
        }
        if queue.arguments.single_active {
            queue.active_consumer.get_or_insert(id);
        }
        if !request.nowait {
            channel.confirm_consume(&tag);
        }
        let prefetch = channel.consumer_prefetch;
        self.consumers.insert(
            id,
            Consumer {
                queue: queue_id,
                channel: channel_id,
                tag,
                no_ack: request.no_ack,
                prefetch,
                unacked: 0,
            },
        );
        self.deliver(queue_id);
        Ok(())
    }

    /// Checks whether a queue accepts a new consumer, and returns its priority. `limited` is set if
    /// the channel has a global prefetch limit.
    fn check_consume(
        &self,
        id: QueueId,
        request: &ConsumeRequest<'_>,
        limited: bool,
    ) -> Result<i64> {
        let Some(queue) = self.queues.get(&id) else {
            return Ok(0);
        };
        let text = self.queue_text(request.queue);
        let priority = consumer_priority(&request.table, &text, queue.arguments.kind)?;
        if queue.is_quorum() {
            // RabbitMQ ignores `exclusive` here.
            return match limited {
                true => Err(AmqpError::not_implemented(format!(
                    "{text} does not support global qos"
                ))),
                false => Ok(priority),
            };
        }
        let in_exclusive_use = queue.exclusive_consumer.is_some()
            || (request.exclusive
                && (queue.arguments.single_active || !queue.consumers.is_empty()));
        if in_exclusive_use {
            return Err(AmqpError::access_refused(format!(
                "{text} in exclusive use"
            )));
        }
        Ok(priority)
    }

    /// Removes a consumer by its tag. Its unacknowledged deliveries stay with the channel.
    pub(crate) fn cancel(&mut self, channel_id: ChannelId, tag: &str) {
        if self.cancel_direct_replies(channel_id, tag) {
            return;
        }
        let removed = self
            .channels
            .get_mut(&channel_id)
            .and_then(|channel| channel.consumers.remove(tag));
        if let Some(id) = removed {
            self.remove_consumer(id);
        }
    }

    /// Removes a consumer from its queue. An auto-delete queue is deleted with its last consumer.
    pub(crate) fn remove_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else {
            return;
        };
        let followed = queue.remove_consumer(id);
        if queue.consumers.is_empty() {
            if queue.auto_delete {
                self.delete_queue(consumer.queue);
                return;
            }
            if queue.arguments.expires.is_some() {
                queue.used_at = Instant::now();
                self.schedule(consumer.queue);
            }
        } else if followed {
            self.deliver(consumer.queue);
        }
    }

    /// Removes the consumers of a deleted queue, sending `basic.cancel` to clients with this
    /// capability.
    pub(crate) fn notify_cancelled(&mut self, consumers: &RoundRobin) {
        for id in consumers.iter() {
            let Some(consumer) = self.consumers.remove(&id) else {
                continue;
            };
            let Some(channel) = self.channels.get_mut(&consumer.channel) else {
                continue;
            };
            channel.consumers.remove(&consumer.tag);
            if channel.cancel_notify {
                let cancel = basic::Cancel {
                    consumer_tag: short_string(&consumer.tag),
                    nowait: true,
                };
                channel.send_buffer.method(
                    channel.number,
                    AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)),
                );
                let send_buffer = channel.send_buffer.clone();
                self.wake(&send_buffer);
            }
        }
    }

    /// Delivers ready messages to the queue's consumers in turn, until either is exhausted.
    pub(crate) fn deliver(&mut self, queue_id: QueueId) {
        while let Some(queue) = self.queues.get_mut(&queue_id) {
            queue.drop_expired(Instant::now, &mut self.dead_letters);
            if queue.is_empty() {
                return;
            }
            if !self.deliver_one(queue_id) {
                self.schedule(queue_id);
                return;
            }
        }
    }

    /// Delivers the first message, even if it has expired. Returns `false` if no consumer can
    /// receive it.
    pub(crate) fn deliver_one(&mut self, queue_id: QueueId) -> bool {
        let Some(consumer) = self.next_consumer(queue_id) else {
            return false;
        };
        let entry = self.queues.get_mut(&queue_id).and_then(Queue::pop);
        if let Some(entry) = entry {
            self.send_delivery(queue_id, consumer, entry);
        }
        true
    }

    /// Delivers from all queues that a channel consumes from, after it regained capacity.
    pub(crate) fn deliver_to_channel(&mut self, channel_id: ChannelId) {
        let Some(channel) = self.channels.get(&channel_id) else {
            return;
        };
        let mut queues: Vec<QueueId> = channel
            .consumers
            .values()
            .filter_map(|id| self.consumers.get(id))
            .map(|consumer| consumer.queue)
            .collect();
        queues.sort_unstable();
        queues.dedup();
        for queue in queues {
            self.deliver(queue);
        }
    }

    /// Selects the next consumer that can receive a message.
    fn next_consumer(&mut self, queue_id: QueueId) -> Option<ConsumerId> {
        let queue = self.queues.get_mut(&queue_id)?;
        let can_receive = |id| can_receive(&self.consumers, &self.channels, id);
        if queue.arguments.single_active {
            return queue.active_consumer.filter(|id| can_receive(*id));
        }
        queue.consumers.next(can_receive)
    }

    /// Writes a delivery and records it as unacknowledged.
    fn send_delivery(&mut self, queue: QueueId, id: ConsumerId, entry: Entry) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&consumer.channel) else {
            return;
        };
        let tag = channel.next_delivery_tag();
        let counted = entry.with_delivery_count();
        let message = counted.as_ref().unwrap_or(&entry.message);
        channel.send_buffer.write(|buffer| {
            buffer.deliver(
                channel.number,
                &consumer.tag,
                tag,
                entry.redelivered,
                message,
            );
        });
        if !consumer.no_ack {
            consumer.unacked += 1;
            channel.prefetch_used += 1;
            channel.unacked.insert(
                tag,
                Unacked {
                    queue,
                    consumer: Some(id),
                    entry,
                },
            );
        }
        if !channel
            .send_buffer
            .wake_pending
            .swap(true, Ordering::Relaxed)
        {
            self.wakes.push(channel.send_buffer.clone());
        }
    }
}

/// Returns whether the prefetch limits and the send buffer allow another delivery to a consumer.
fn can_receive(
    consumers: &HashMap<ConsumerId, Consumer>,
    channels: &HashMap<ChannelId, ChannelConsumers>,
    id: ConsumerId,
) -> bool {
    let Some(consumer) = consumers.get(&id) else {
        return false;
    };
    let Some(channel) = channels.get(&consumer.channel) else {
        return false;
    };
    let within_prefetch = consumer.no_ack
        || ((consumer.prefetch == 0 || consumer.unacked < consumer.prefetch.into())
            && (channel.global_prefetch == 0
                || channel.prefetch_used < channel.global_prefetch.into()));
    within_prefetch && channel.send_buffer.has_delivery_capacity()
}
