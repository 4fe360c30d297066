//! Description of a connection: peer and negotiated parameters.

// Only the management API reads these fields.
#![cfg_attr(not(feature = "management"), allow(dead_code))]

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use amq_protocol::types::FieldTable;

use crate::send_buffer::SendBuffer;

/// A registered connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) send_buffer: Arc<SendBuffer>,
    /// The peer's and the local address.
    pub(crate) addrs: Option<(SocketAddr, SocketAddr)>,
    pub(crate) tls: bool,
    /// Set while the connection is in a virtual host.
    pub(crate) session: Option<VHostSession>,
}

/// Parameters negotiated by the handshake.
#[derive(Clone, Debug)]
pub(crate) struct VHostSession {
    pub(crate) vhost: String,
    pub(crate) user: String,
    /// SASL mechanism of the login.
    pub(crate) mechanism: String,
    /// Client properties from `connection.start-ok`.
    pub(crate) properties: FieldTable,
    pub(crate) opened_at: SystemTime,
    pub(crate) frame_max: usize,
    pub(crate) channel_max: u16,
    /// Heartbeat interval in seconds; 0 disables heartbeats.
    pub(crate) heartbeat: u64,
}

impl ConnectionInfo {
    /// Returns the authenticated user, while the connection is in a virtual host.
    pub(crate) fn user(&self) -> Option<&str> {
        self.session.as_ref().map(|session| &*session.user)
    }

    /// Returns RabbitMQ's name of the connection: `127.0.0.1:41844 -> 127.0.0.1:5672`.
    pub(crate) fn name(&self) -> String {
        match self.addrs {
            Some((peer, local)) => format!("{peer} -> {local}"),
            None => format!("connection {}", self.send_buffer.connection.0),
        }
    }
}
