//! Messages, as published and as queue entries.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::types::AMQPValue;
use bytes::Bytes;

use crate::{headers, name::Name};

/// A published message, shared by all queues that it was routed to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) exchange: Name,
    pub(crate) routing_key: Name,
    /// Additional routing keys, from the headers `CC` and `BCC`.
    pub(crate) cc_keys: Vec<Name>,
    /// Payload of the content header, byte for byte as received except for the header `BCC`.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// The `expiration` property.
    pub(crate) expiration: Option<Duration>,
    /// The `priority` property; 0 if absent.
    pub(crate) priority: u8,
    /// Whether the broker wrote its header `x-death`, which clients can also send.
    pub(crate) dead_lettered: bool,
}

impl Message {
    /// Returns the routing key and the additional ones.
    pub(crate) fn routing_keys(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.routing_key).chain(&self.cc_keys)
    }
}

/// A message in a queue: ready, or delivered and unacknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// Order of arrival in the queue; a requeued message returns to this position.
    pub(crate) position: u64,
    pub(crate) message: Arc<Message>,
    /// Set when the message is requeued after a delivery.
    pub(crate) redelivered: bool,
    /// Number of times that the message was requeued; counted by quorum queues only.
    pub(crate) return_count: u32,
    /// When the message expires if it is still ready; `None` for never.
    pub(crate) expires_at: Option<Instant>,
}

impl Entry {
    /// Returns the message with `x-delivery-count`, which quorum queues add to redeliveries. `None`
    /// if it was never requeued.
    pub(crate) fn with_delivery_count(&self) -> Option<Message> {
        if self.return_count == 0 {
            return None;
        }
        let header = headers::rewrite(&self.message.header, |properties, headers| {
            let count = AMQPValue::LongLongInt(self.return_count.into());
            headers.insert("x-delivery-count".into(), count);
            properties
        })?;
        Some(Message {
            header,
            ..Message::clone(&self.message)
        })
    }
}
