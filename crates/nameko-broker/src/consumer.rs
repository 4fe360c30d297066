//! Consumers.

use crate::{
    ids::{ChannelId, QueueId},
    name::Name,
};

/// A consumer of one queue on one channel.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) queue: QueueId,
    pub(crate) channel: ChannelId,
    pub(crate) tag: Name,
    /// Deliveries count as acknowledged once sent and are not limited by prefetch.
    pub(crate) no_ack: bool,
    /// Maximum number of unacknowledged deliveries; 0 is unlimited. Taken from the channel when the
    /// consumer is added.
    pub(crate) prefetch: u16,
    pub(crate) unacked: u32,
}
