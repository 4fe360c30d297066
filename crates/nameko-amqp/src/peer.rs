//! Host, virtual host and user of a connection, for errors.

use std::{fmt, sync::Arc};

/// Whom an error is about: host, port, virtual host and user of a connection, never the password.
///
/// Shows as ``localhost:5672 (vhost `/`, user `guest`)``.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(Arc<PeerParts>);

#[derive(PartialEq, Eq)]
struct PeerParts {
    host: String,
    port: u16,
    vhost: String,
    user: String,
}

impl Peer {
    pub(crate) fn new(host: &str, port: u16, vhost: &str, user: &str) -> Self {
        Self(Arc::new(PeerParts {
            host: host.to_owned(),
            port,
            vhost: vhost.to_owned(),
            user: user.to_owned(),
        }))
    }

    /// The host name or address.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.0.user
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerParts {
            host,
            port,
            vhost,
            user,
        } = &*self.0;
        if host.contains(':') {
            write!(f, "[{host}]:{port} (vhost `{vhost}`, user `{user}`)")
        } else {
            write!(f, "{host}:{port} (vhost `{vhost}`, user `{user}`)")
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
