//! What is known of a connection from outside: who is at the other end, and what was agreed on.

// All of it is only ever shown by the management API.
#![cfg_attr(not(feature = "management"), allow(dead_code))]

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use amq_protocol::types::FieldTable;

use crate::send_buffer::SendBuffer;

/// A connection in the broker's list.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) send_buffer: Arc<SendBuffer>,
    /// The peer's address and the broker's.
    pub(crate) addrs: Option<(SocketAddr, SocketAddr)>,
    /// Set while it is in a virtual host.
    pub(crate) session: Option<VHostSession>,
}

/// What the handshake came to.
#[derive(Clone, Debug)]
pub(crate) struct VHostSession {
    pub(crate) vhost: String,
    pub(crate) user: String,
    /// The SASL mechanism it logged in with.
    pub(crate) mechanism: String,
    /// What the client says of itself.
    pub(crate) properties: FieldTable,
    pub(crate) opened_at: SystemTime,
    pub(crate) frame_max: usize,
    pub(crate) channel_max: u16,
    /// Seconds between heartbeats; 0 is off.
    pub(crate) heartbeat: u64,
}

impl ConnectionInfo {
    /// RabbitMQ's name for it, by which it is closed: `127.0.0.1:41844 -> 127.0.0.1:5672`.
    pub(crate) fn name(&self) -> String {
        match self.addrs {
            Some((peer, local)) => format!("{peer} -> {local}"),
            None => format!("connection {}", self.send_buffer.connection.0),
        }
    }
}
