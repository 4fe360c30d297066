//! Opening and closing channels.

use std::sync::Arc;

use super::state::VHostState;
use crate::{
    channel_consumers::ChannelConsumers, ids::ChannelId, send_buffer::SendBuffer,
    transaction::Transaction,
};

impl VHostState {
    /// Opens a channel.
    pub(crate) fn open_channel(
        &mut self,
        number: u16,
        send_buffer: Arc<SendBuffer>,
        cancel_notify: bool,
    ) -> ChannelId {
        let id = ChannelId(self.next_id());
        self.channels.insert(
            id,
            ChannelConsumers::new(number, send_buffer, cancel_notify),
        );
        id
    }

    /// Closes a channel: rolls back its transaction, requeues its unacknowledged messages and
    /// removes its consumers.
    pub(crate) fn close_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        self.remove_direct_replies(channel.replies);
        // Requeued before the consumers are removed, else an auto-delete queue would be deleted
        // with these messages. Nothing is delivered to this channel meanwhile, since it is removed
        // already.
        let mut unacked = channel.unacked;
        unacked.extend(
            channel
                .transaction
                .into_iter()
                .flat_map(Transaction::roll_back),
        );
        let queues = self.requeue_deliveries(unacked.into_values(), true);
        for consumer in channel.consumers.into_values() {
            self.remove_consumer(consumer);
        }
        for queue in queues {
            self.enforce_limits_and_deliver(queue);
        }
    }
}
