//! Address and identity of a connection, for errors.

use std::{fmt, sync::Arc};

/// Host, port, virtual host and user of a connection, without the password.
///
/// Displayed as ``localhost:5672 (vhost `/`, user `guest`)``. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    host: String,
    port: u16,
    vhost: String,
    user: String,
}

impl Peer {
    pub(crate) fn new(host: &str, port: u16, vhost: &str, user: &str) -> Self {
        Self(Arc::new(Parts {
            host: host.to_owned(),
            port,
            vhost: vhost.to_owned(),
            user: user.to_owned(),
        }))
    }

    /// Returns the host name or IP address.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns the virtual host.
    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// Returns the user name.
    pub fn user(&self) -> &str {
        &self.0.user
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
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
