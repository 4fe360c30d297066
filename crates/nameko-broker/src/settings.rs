//! Settings of a broker.

use std::time::Duration;

use crate::auth::Credentials;

/// Scope of the broker, logged at the start and sent to every client.
pub(crate) const PURPOSE: &str = "for development and tests; messages are held in memory and lost when it \
                       stops; use RabbitMQ in production";

/// Settings of a [`Broker`](crate::Broker), to be changed before it starts.
///
/// ```
/// # async fn example() -> Result<(), nameko_broker::BrokerError> {
/// use nameko_broker::Broker;
///
/// let broker = Broker::builder()
///     .user("anna", "secret")
///     .vhost("staging")
///     .start("127.0.0.1:0")
///     .await?;
/// println!("{}", broker.uri());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BrokerBuilder {
    pub(crate) settings: Settings,
}

/// Settings of a running broker.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// User names and passwords; empty means guest/guest.
    users: Vec<(String, String)>,
    /// Virtual hosts; empty means `/`.
    vhosts: Vec<String>,
    pub(crate) max_message_size: u64,
    /// In seconds.
    pub(crate) heartbeat: u16,
    pub(crate) frame_max: u32,
    pub(crate) channel_max: u16,
    pub(crate) handshake_timeout: Duration,
    pub(crate) send_timeout: Duration,
    /// Port of the management API; `None` disables it.
    #[cfg(feature = "management")]
    pub(crate) management_port: Option<u16>,
    /// The TLS port; `None` disables it.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            vhosts: Vec::new(),
            max_message_size: 16 << 20,
            heartbeat: 60,
            frame_max: 128 << 10,
            channel_max: 2047,
            handshake_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            #[cfg(feature = "management")]
            management_port: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Settings {
    /// Returns the users and passwords; at least one.
    pub(crate) fn users(&self) -> Vec<(&str, &str)> {
        match &*self.users {
            [] => vec![("guest", "guest")],
            users => users
                .iter()
                .map(|(user, password)| (&**user, &**password))
                .collect(),
        }
    }

    /// Returns the names of the virtual hosts; at least one.
    pub(crate) fn vhosts(&self) -> Vec<&str> {
        match &*self.vhosts {
            [] => vec!["/"],
            vhosts => vhosts.iter().map(|name| &**name).collect(),
        }
    }

    /// Returns the user with these credentials.
    pub(crate) fn authenticate(&self, given: &Credentials) -> Option<&str> {
        self.users()
            .into_iter()
            .find(|(user, password)| {
                user.as_bytes() == given.user && password.as_bytes() == given.password
            })
            .map(|(user, _)| user)
    }

    /// Returns the user with this name.
    pub(crate) fn user(&self, name: &str) -> Option<&str> {
        (self.users().into_iter())
            .map(|(user, _)| user)
            .find(|user| *user == name)
    }
}

impl BrokerBuilder {
    /// Adds a user. If none is added, there is `guest` with the password `guest`. All users have
    /// all permissions.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.users.push((name.into(), password.into()));
        self
    }

    /// Adds a virtual host. If none is added, there is `/`.
    #[must_use]
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        self.settings.vhosts.push(name.into());
        self
    }

    /// Sets the maximum size of a message body, in bytes. Default: 16777216 (16 MiB), as in
    /// RabbitMQ 4.
    #[must_use]
    pub fn max_message_size(mut self, bytes: u64) -> Self {
        self.settings.max_message_size = bytes;
        self
    }

    /// Sets the heartbeat interval offered to clients, in seconds; a client may choose another one.
    /// 0 disables heartbeats. Default: 60.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.settings.heartbeat = seconds;
        self
    }

    /// Sets the maximum frame size, in bytes. Values below 4096, the protocol's minimum, are raised
    /// to it. Default: 131072.
    #[must_use]
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.settings.frame_max = bytes.max(4096);
        self
    }

    /// Sets the maximum number of channels per connection; 0 is unlimited. Default: 2047.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.settings.channel_max = channels;
        self
    }

    /// Sets the time limit of the handshake. Default: 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Sets the time after which a peer that accepts no data is disconnected. Default: 30 s.
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.settings.send_timeout = timeout;
        self
    }

    /// Serves the management API, a subset of RabbitMQ's, on this port of the same address; 0
    /// selects a free port. Disabled by default.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_port(mut self, port: u16) -> Self {
        self.settings.management_port = Some(port);
        self
    }

    /// Serves clients over TLS, too, on a port of its own of the same address. Disabled by default.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), nameko_broker::BrokerError> {
    /// use nameko_broker::{Broker, Tls};
    ///
    /// let tls = Tls::new("server.pem", "server.key").request_client_certificates("ca.pem");
    /// let broker = Broker::builder().tls(tls).start("127.0.0.1:0").await?;
    /// println!("{:?}", broker.tls_uri()); // amqps://guest:guest@127.0.0.1:39114
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }
}
