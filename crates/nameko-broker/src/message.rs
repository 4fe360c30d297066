//! A published message and its place in a queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::types::AMQPValue;
use bytes::Bytes;

use crate::{headers, name::Name};

/// A message as published; the same value sits in every queue it was routed to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) exchange: Name,
    pub(crate) routing_key: Name,
    /// More routing keys, from the headers `CC` and `BCC`.
    pub(crate) cc_keys: Vec<Name>,
    /// The content header's payload, as it came but for a header `BCC`: consumers get the properties byte for byte.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// The `expiration` property.
    pub(crate) expiration: Option<Duration>,
    /// The `priority` property, 0 without one.
    pub(crate) priority: u8,
    /// In how many queues it died in a row with no consumer's doing: it expired, or the queue was full.
    pub(crate) automatic_deaths: usize,
}

/// A message in one queue, ready or delivered and not yet acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// Order of arrival in its queue; a requeued message goes back to its place by it.
    pub(crate) position: u64,
    pub(crate) message: Arc<Message>,
    /// Set once it was delivered and came back.
    pub(crate) redelivered: bool,
    /// How often it came back. Only quorum queues count.
    pub(crate) return_count: u32,
    /// When it is dropped if still ready; `None` for never.
    pub(crate) expires_at: Option<Instant>,
}

impl Entry {
    /// The message as a quorum queue shows it when it comes again, with `x-delivery-count`; `None` where it is as published.
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
