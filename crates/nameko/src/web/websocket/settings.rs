//! Configuration of sockets: the config keys `WEBSOCKET_*`.

use std::time::Duration;

use crate::config::{Config, ConfigError};

/// Configuration of sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Maximum size of a received message, in bytes. `WEBSOCKET_MAX_MESSAGE`.
    pub(super) max_message: usize,
    /// Maximum number of bytes pending for one socket. `WEBSOCKET_MAX_QUEUE`.
    pub(super) max_queue: usize,
    /// Interval of pings to silent sockets, in seconds; 0 disables them. `WEBSOCKET_PING_INTERVAL`.
    pub(super) ping: Option<Duration>,
}

impl Settings {
    pub(super) fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let bytes = |key| match config.int(key)? {
            None => Ok(1 << 20),
            Some(number) => usize::try_from(number)
                .ok()
                .filter(|bytes| *bytes > 0)
                .ok_or_else(|| config.invalid(key, "must be a whole number above 0")),
        };
        let ping = config.float("WEBSOCKET_PING_INTERVAL")?.unwrap_or(30.0);
        let ping = Duration::try_from_secs_f64(ping).map_err(|_| {
            config.invalid(
                "WEBSOCKET_PING_INTERVAL",
                "must be a number of seconds, 0 or more",
            )
        })?;
        Ok(Self {
            max_message: bytes("WEBSOCKET_MAX_MESSAGE")?,
            max_queue: bytes("WEBSOCKET_MAX_QUEUE")?,
            ping: (!ping.is_zero()).then_some(ping),
        })
    }
}
