//! Consuming side of a channel.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use amq_protocol::protocol::{AMQPClass, basic};
use uuid::Uuid;

use crate::{
    direct_reply::ReplyConsumer,
    error::{AmqpError, Result},
    ids::{ConsumerId, QueueId},
    message::Entry,
    name::{Name, short_string},
    send_buffer::SendBuffer,
    transaction::Transaction,
};

/// Consumers, unacknowledged deliveries and transaction of a channel. Publishing outside of a
/// transaction is handled by the connection.
#[derive(Debug)]
pub(crate) struct ChannelConsumers {
    pub(crate) number: u16,
    pub(crate) send_buffer: Arc<SendBuffer>,
    /// The client has the capability `consumer_cancel_notify`.
    pub(crate) cancel_notify: bool,
    pub(crate) consumers: HashMap<Name, ConsumerId>,
    /// Consumer of direct replies, if any.
    pub(crate) replies: Option<ReplyConsumer>,
    /// Unacknowledged deliveries by delivery tag.
    pub(crate) unacked: BTreeMap<u64, Unacked>,
    /// Set by `tx.select`.
    pub(crate) transaction: Option<Transaction>,
    /// Number of `unacked` that count towards `global_prefetch`. Messages read with `basic.get` do
    /// not.
    pub(crate) prefetch_used: u32,
    /// Limit of each future consumer (`basic.qos` without `global`); 0 is unlimited.
    pub(crate) consumer_prefetch: u16,
    /// Limit of the whole channel (`basic.qos` with `global`); 0 is unlimited.
    pub(crate) global_prefetch: u16,
    delivery_tag: u64,
}

/// A delivered, unacknowledged message.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) queue: QueueId,
    /// `None` for a message read with `basic.get`.
    pub(crate) consumer: Option<ConsumerId>,
    pub(crate) entry: Entry,
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Acknowledged and dropped.
    Ack,
    /// Dropped, or dead-lettered if the queue has a dead-letter exchange.
    Reject,
    /// Returned to its position in the queue.
    Requeue,
}

impl ChannelConsumers {
    pub(crate) fn new(number: u16, send_buffer: Arc<SendBuffer>, cancel_notify: bool) -> Self {
        Self {
            number,
            send_buffer,
            cancel_notify,
            consumers: HashMap::new(),
            replies: None,
            unacked: BTreeMap::new(),
            transaction: None,
            prefetch_used: 0,
            consumer_prefetch: 0,
            global_prefetch: 0,
            delivery_tag: 0,
        }
    }

    /// Returns the tag of a new consumer, generated if the client requests an empty one.
    ///
    /// # Errors
    ///
    /// If the channel has a consumer with this tag.
    pub(crate) fn new_consumer_tag(&self, requested: &str) -> Result<Name> {
        if self.consumers.contains_key(requested) {
            return Err(AmqpError::not_allowed(format!(
                "attempt to reuse consumer tag '{requested}'"
            )));
        }
        Ok(match requested {
            "" => format!("amq.ctag-{}", Uuid::new_v4().simple()).into(),
            tag => tag.into(),
        })
    }

    /// Sends `basic.consume-ok`.
    pub(crate) fn confirm_consume(&self, tag: &str) {
        let reply = basic::ConsumeOk {
            consumer_tag: short_string(tag),
        };
        self.send_buffer.method(
            self.number,
            AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(reply)),
        );
    }

    /// Returns the deliveries that their queues count as unacknowledged, including those settled in
    /// an uncommitted transaction.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &Unacked> {
        let uncommitted = self.transaction.iter().flat_map(Transaction::settled);
        self.unacked.values().chain(uncommitted)
    }

    /// Returns the next delivery tag without using it.
    pub(crate) fn peek_delivery_tag(&self) -> u64 {
        self.delivery_tag + 1
    }

    /// Allocates a delivery tag. Tags count up from 1 on each channel.
    pub(crate) fn next_delivery_tag(&mut self) -> u64 {
        self.delivery_tag += 1;
        self.delivery_tag
    }
}
