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
    /// Messages count as acknowledged once sent, and no prefetch limit applies.
    pub(crate) no_ack: bool,
    /// Most unacknowledged messages; 0 is no limit. The channel's setting when the consumer came.
    pub(crate) prefetch: u16,
    pub(crate) unacked: u32,
}
