//! Transactions: holding publishes, commit and rollback.

use super::{publish::Published, state::VHostState};
use crate::{
    error::{AmqpError, Result},
    headers::Headers,
    ids::ChannelId,
    message::Message,
    name::Name,
    transaction::{Transaction, UncommittedPublish},
};

impl VHostState {
    /// Makes a channel transactional.
    pub(crate) fn begin_transaction(&mut self, channel_id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            channel.transaction.get_or_insert_default();
        }
    }

    /// Routes a message and holds it until the commit. As in RabbitMQ, direct replies are part of
    /// routing and do not wait for the commit.
    pub(crate) fn publish_in_transaction(
        &mut self,
        channel_id: ChannelId,
        message: Message,
        headers: Option<&Headers>,
        mandatory: bool,
    ) {
        self.send_direct_replies(&message);
        let queues = self.route_to_names(&message, headers);
        let channel = self.channels.get_mut(&channel_id);
        if let Some(transaction) = channel.and_then(|channel| channel.transaction.as_mut()) {
            transaction.publishes.push(UncommittedPublish {
                message,
                mandatory,
                queues,
            });
        }
    }

    /// Applies the publishes of the channel's transaction, then its settlements, and begins the
    /// next one. Passes unroutable mandatory messages to `on_return`.
    ///
    /// # Errors
    ///
    /// If a full queue rejected a message. The rest of the transaction is applied, as in RabbitMQ.
    pub(crate) fn commit(
        &mut self,
        channel_id: ChannelId,
        mut on_return: impl FnMut(&Message),
    ) -> Result<()> {
        let Transaction {
            publishes,
            settlements,
        } = self.take_transaction(channel_id);
        let mut rejected = false;
        for publish in publishes {
            let queues = self.queues_named(&publish.queues);
            if queues.is_empty() && publish.mandatory {
                on_return(&publish.message);
            }
            rejected |= self.enqueue_all(publish.message, queues) == Published::Rejected;
        }
        for (settlement, deliveries) in settlements {
            self.settle_deliveries(channel_id, deliveries.into_values(), settlement);
        }
        match rejected {
            true => Err(AmqpError::precondition_failed("partial tx completion")),
            false => Ok(()),
        }
    }

    /// Drops the publishes of the channel's transaction, makes the settled deliveries
    /// unacknowledged again, and begins the next transaction.
    pub(crate) fn roll_back(&mut self, channel_id: ChannelId) {
        let settled = self.take_transaction(channel_id).roll_back();
        if let Some(channel) = self.channels.get_mut(&channel_id) {
            channel.unacked.extend(settled);
        }
    }

    fn take_transaction(&mut self, channel_id: ChannelId) -> Transaction {
        self.channels
            .get_mut(&channel_id)
            .and_then(|channel| channel.transaction.as_mut())
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Returns the names of the queues for a message. The default exchange routes to queues that
    /// are declared before the commit.
    fn route_to_names(&self, message: &Message, headers: Option<&Headers>) -> Vec<Name> {
        if message.exchange.is_empty() {
            return message.routing_keys().cloned().collect();
        }
        let mut queues = Vec::with_capacity(1);
        self.route(message, headers, &mut queues);
        queues
            .iter()
            .filter_map(|id| self.queues.get(id))
            .map(|queue| queue.name.clone())
            .collect()
    }
}
