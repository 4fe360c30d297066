//! A published message and its place in a queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// A name shared by everything that mentions it: of a queue, an exchange, a routing key, a consumer tag.
pub(crate) type Name = Arc<str>;

/// A message as published; the same value sits in every queue it was routed to.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) exchange: Name,
    pub(crate) routing_key: Name,
    /// The content header's payload, as it came: consumers get the properties byte for byte.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// The `expiration` property.
    pub(crate) expiration: Option<Duration>,
}

/// A message in one queue, ready or delivered and not yet acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Order of arrival in its queue; a requeued message goes back to its place by it.
    pub(crate) position: u64,
    pub(crate) message: Arc<Message>,
    /// Set once it was delivered and came back.
    pub(crate) redelivered: bool,
    /// When it is dropped if still ready; `None` for never.
    pub(crate) expires_at: Option<Instant>,
}
