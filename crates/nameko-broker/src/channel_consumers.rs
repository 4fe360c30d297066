//! The consuming side of a channel, as its virtual host keeps it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    direct_reply::ReplyConsumer,
    ids::{ConsumerId, QueueId},
    message::Entry,
    name::Name,
    send_buffer::SendBuffer,
};

/// The consuming side of a channel; the publishing side is the connection's own.
#[derive(Debug)]
pub(crate) struct ChannelConsumers {
    pub(crate) number: u16,
    pub(crate) send_buffer: Arc<SendBuffer>,
    /// Whether the client said it understands `basic.cancel` from the server.
    pub(crate) cancel_notify: bool,
    pub(crate) consumers: HashMap<Name, ConsumerId>,
    /// Set while the channel listens for direct replies.
    pub(crate) replies: Option<ReplyConsumer>,
    /// Delivered and not acknowledged, by delivery tag.
    pub(crate) unacked: BTreeMap<u64, Unacked>,
    /// How many of `unacked` count against the channel's limit; `basic.get` does not.
    pub(crate) prefetch_used: u32,
    /// Limit for consumers to come (`basic.qos` with `global` off); 0 is none.
    pub(crate) consumer_prefetch: u16,
    /// Limit for the whole channel (`basic.qos` with `global` on); 0 is none.
    pub(crate) global_prefetch: u16,
    delivery_tag: u64,
}

/// A message delivered and not acknowledged.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) queue: QueueId,
    /// `None` when it was read with `basic.get`.
    pub(crate) consumer: Option<ConsumerId>,
    pub(crate) entry: Entry,
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
            prefetch_used: 0,
            consumer_prefetch: 0,
            global_prefetch: 0,
            delivery_tag: 0,
        }
    }

    /// What the next delivery will have.
    pub(crate) fn peek_delivery_tag(&self) -> u64 {
        self.delivery_tag + 1
    }

    /// Delivery tags count up from 1 on each channel.
    pub(crate) fn next_delivery_tag(&mut self) -> u64 {
        self.delivery_tag += 1;
        self.delivery_tag
    }
}
