//! Identifiers of connections, channels, queues and consumers.

/// Identifies a connection; unique for the lifetime of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Identifies an open channel; unique within a virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId(pub(crate) u64);

/// Identifies a queue; a queue that is deleted and declared again has a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u64);

/// Identifies a consumer; unique within a virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConsumerId(pub(crate) u64);
