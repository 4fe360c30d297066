//! A message that came, and how it is acknowledged.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::{channel_state::ChannelState, encode, properties::Properties};

/// The name of a consumer on its channel.
pub type ConsumerTag = Arc<str>;

/// Where deliveries go. Called on the I/O task: it must not block.
pub type Sink = Arc<dyn Fn(Delivery) + Send + Sync>;

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

/// Acknowledges one delivery, once: of all clones the first call counts.
///
/// When the channel that brought the delivery is gone nothing is sent: the broker has put the message back already, and
/// its tag would name another message on another channel. Dropping an acker does nothing; the message stays
/// unacknowledged until its channel ends.
#[derive(Clone)]
pub struct Acker(Arc<Unsettled>);

struct Unsettled {
    channel: Arc<ChannelState>,
    tag: u64,
    settled: AtomicBool,
}

impl Acker {
    pub(crate) fn new(channel: Arc<ChannelState>, tag: u64) -> Self {
        Self(Arc::new(Unsettled {
            channel,
            tag,
            settled: AtomicBool::new(false),
        }))
    }

    /// The message is done with: the broker forgets it. Does not wait.
    pub fn ack(&self) {
        if self.first() {
            let Unsettled { channel, tag, .. } = &*self.0;
            channel.send(|out| encode::ack(out, channel.id, *tag));
        }
    }

    /// The message is not wanted: back to its queue with `requeue`, else dropped or dead-lettered. Does not wait.
    pub fn reject(&self, requeue: bool) {
        if self.first() {
            let Unsettled { channel, tag, .. } = &*self.0;
            channel.send(|out| encode::reject(out, channel.id, *tag, requeue));
        }
    }

    /// Whether it was acknowledged or rejected here.
    pub fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Relaxed)
    }

    /// Whether it still counts: neither acknowledged nor rejected here, and its channel is open.
    pub fn is_pending(&self) -> bool {
        !self.is_settled() && self.0.channel.is_open()
    }

    fn first(&self) -> bool {
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
