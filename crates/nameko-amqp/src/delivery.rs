//! A delivered message and its acknowledgement.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::{channel_writer::ChannelWriter, encode, properties::Properties};

/// Name of a consumer on its channel.
pub type ConsumerTag = Arc<str>;

/// Callback for deliveries. Called on the I/O task, where it must not block.
pub type Sink = Arc<dyn Fn(Delivery) + Send + Sync>;

/// A message delivered by the broker.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Body.
    pub body: Bytes,
    /// Properties, including the headers.
    pub properties: Properties,
    /// Exchange that it was published to, `""` for the default exchange.
    pub exchange: Arc<str>,
    /// Routing key that it was published with.
    pub routing_key: String,
    /// Whether it was delivered before, to any consumer, without being acknowledged.
    pub redelivered: bool,
    /// Consumer it was delivered to; empty for a message fetched with
    /// [`Channel::get`](crate::Channel::get).
    pub consumer_tag: ConsumerTag,
    /// Number of the delivery on its channel, from 1.
    pub delivery_tag: u64,
    /// Acknowledges or rejects the delivery.
    pub acker: Acker,
}

/// Acknowledges or rejects one delivery. Of all clones, only the first call has an effect.
///
/// Once the channel of the delivery is closed, nothing is sent: the broker has requeued the
/// message, and its tag would name another delivery on another channel. Dropping an acker has no
/// effect; the message stays unacknowledged until its channel is closed.
#[derive(Clone)]
pub struct Acker(Arc<Unsettled>);

struct Unsettled {
    channel: Arc<ChannelWriter>,
    tag: u64,
    settled: AtomicBool,
}

impl Acker {
    pub(crate) fn new(channel: Arc<ChannelWriter>, tag: u64) -> Self {
        Self(Arc::new(Unsettled {
            channel,
            tag,
            settled: AtomicBool::new(false),
        }))
    }

    /// Acknowledges the delivery (`basic.ack`): the broker deletes the message. Does not block.
    pub fn ack(&self) {
        if self.settle() {
            let Unsettled { channel, tag, .. } = &*self.0;
            channel.send(|out| encode::ack(out, channel.id, *tag));
        }
    }

    /// Rejects the delivery (`basic.reject`): the broker requeues the message with `requeue`, and
    /// drops or dead-letters it without. Does not block.
    pub fn reject(&self, requeue: bool) {
        if self.settle() {
            let Unsettled { channel, tag, .. } = &*self.0;
            channel.send(|out| encode::reject(out, channel.id, *tag, requeue));
        }
    }

    /// Returns whether the delivery was acknowledged or rejected.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Relaxed)
    }

    /// Returns whether acknowledging still has an effect: the delivery is not settled, and its
    /// channel is open.
    pub fn is_pending(&self) -> bool {
        !self.is_settled() && self.0.channel.is_open()
    }

    /// Marks the delivery as settled. Returns `false` if it was before.
    fn settle(&self) -> bool {
        !self.0.settled.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acker")
            .field("tag", &self.0.tag)
            .field("settled", &self.is_settled())
            .finish()
    }
}
