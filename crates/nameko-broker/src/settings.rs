//! What a broker can be told before it starts.

use std::time::Duration;

use crate::auth::Credentials;

/// Said at the start and to every client.
pub(crate) const PURPOSE: &str = "for trying out, development, tests and use inside one process; messages live in memory and are gone \
                       when it stops; use RabbitMQ in production";

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

/// The settings a broker runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// ConnectionIndex and passwords; guest/guest when none were given.
    users: Vec<(String, String)>,
    /// Virtual hosts; "/" when none were given.
    vhosts: Vec<String>,
    pub(crate) max_message_size: u64,
    /// Seconds.
    pub(crate) heartbeat: u16,
    pub(crate) frame_max: u32,
    pub(crate) channel_max: u16,
    pub(crate) handshake_timeout: Duration,
    pub(crate) send_timeout: Duration,
    /// Where the management API listens, beside AMQP; `None` for nowhere.
    #[cfg(feature = "management")]
    pub(crate) management_port: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            vhosts: Vec::new(),
            max_message_size: 128 << 20,
            heartbeat: 60,
            frame_max: 128 << 10,
            channel_max: 2047,
            handshake_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            #[cfg(feature = "management")]
            management_port: None,
        }
    }
}

impl Settings {
    /// Users with their passwords, at least one.
    pub(crate) fn users(&self) -> Vec<(&str, &str)> {
        match &*self.users {
            [] => vec![("guest", "guest")],
            users => users
                .iter()
                .map(|(user, password)| (&**user, &**password))
                .collect(),
        }
    }

    /// ConnectionIndex of the virtual hosts, at least one.
    pub(crate) fn vhosts(&self) -> Vec<&str> {
        match &*self.vhosts {
            [] => vec!["/"],
            vhosts => vhosts.iter().map(|name| &**name).collect(),
        }
    }

    /// The user these credentials are right for.
    pub(crate) fn authenticate(&self, given: &Credentials) -> Option<&str> {
        self.users()
            .into_iter()
            .find(|(user, password)| {
                user.as_bytes() == given.user && password.as_bytes() == given.password
            })
            .map(|(user, _)| user)
    }
}

impl BrokerBuilder {
    /// Adds a user. Without any there is `guest` with the password `guest`. Every user may do everything.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.users.push((name.into(), password.into()));
        self
    }

    /// Adds a virtual host. Without any there is `/`.
    #[must_use]
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        self.settings.vhosts.push(name.into());
        self
    }

    /// Largest message body, in bytes. Default 134217728 (128 MiB), as RabbitMQ's.
    #[must_use]
    pub fn max_message_size(mut self, bytes: u64) -> Self {
        self.settings.max_message_size = bytes;
        self
    }

    /// Interval of heartbeats offered to clients, in seconds; a client may choose another. 0 is off. Default 60.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.settings.heartbeat = seconds;
        self
    }

    /// Largest frame, in bytes, at least 4096 (the protocol's minimum, used where less is asked for). Default 131072.
    #[must_use]
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.settings.frame_max = bytes.max(4096);
        self
    }

    /// Most channels on one connection; 0 is no limit. Default 2047.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.settings.channel_max = channels;
        self
    }

    /// How long a peer may take for the handshake before it is closed. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// How long a peer may take nothing of what is sent to it before it is closed. Default 30 s.
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.settings.send_timeout = timeout;
        self
    }

    /// Serves the management API, which is a part of RabbitMQ's, on this port of the same address; 0 takes a free one.
    /// Without it there is none.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_port(mut self, port: u16) -> Self {
        self.settings.management_port = Some(port);
        self
    }
}
