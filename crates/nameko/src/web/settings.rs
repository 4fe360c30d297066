//! Configuration of the web server.

use std::time::Duration;

use super::address::BindAddress;
use crate::config::{Config, ConfigError};

/// The settings of one container's web server.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) address: BindAddress,
    /// Lets other processes share the port. `WEB_SERVER_REUSE_PORT`.
    pub(super) reuse_port: bool,
    pub(super) limits: Limits,
}

/// Limits for clients. Times are in seconds in the configuration.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Limits {
    /// Maximum size of a request body, in bytes. `WEB_SERVER_MAX_BODY`.
    pub(super) max_body: usize,
    /// Maximum number of open connections. `WEB_SERVER_MAX_CONNECTIONS`.
    pub(super) max_connections: usize,
    /// Time limit for receiving a request head. `WEB_SERVER_HEADER_TIMEOUT`.
    pub(super) header_timeout: Duration,
    /// Time limit for receiving a request body. `WEB_SERVER_BODY_TIMEOUT`.
    pub(super) body_timeout: Duration,
    /// Time limit without progress while sending a response. `WEB_SERVER_SEND_TIMEOUT`.
    pub(super) send_timeout: Duration,
    /// Idle time of a kept-alive connection; zero disables keep-alive. `WEB_SERVER_KEEP_ALIVE`.
    pub(super) keep_alive: Duration,
    /// Time limit of a worker; 0 disables it. `WEB_SERVER_TIMEOUT`.
    pub(super) worker_timeout: Option<Duration>,
    pub(super) parts: PartLimits,
    /// Time limit for requests in progress when the container stops. `stop_timeout`.
    pub(super) stop_timeout: Duration,
}

/// Limits of a multipart body.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartLimits {
    /// Maximum number of parts. `WEB_SERVER_MAX_PARTS`.
    pub(super) max_parts: usize,
    /// Maximum size of a part, in bytes. `WEB_SERVER_MAX_PART_SIZE`.
    pub(super) max_size: u64,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self {
            max_parts: 1000,
            max_size: u64::MAX,
        }
    }
}

impl PartLimits {
    fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let default = Self::default();
        let max_size = match config.get("WEB_SERVER_MAX_PART_SIZE") {
            None => default.max_size,
            Some(_) => count(config, "WEB_SERVER_MAX_PART_SIZE", 1)? as u64,
        };
        Ok(Self {
            max_parts: count(config, "WEB_SERVER_MAX_PARTS", default.max_parts)?,
            max_size,
        })
    }
}

impl Settings {
    pub(super) fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let worker_timeout = seconds(config, "WEB_SERVER_TIMEOUT", 60.0)?;
        Ok(Self {
            address: BindAddress::from_config(config)?,
            reuse_port: config.bool("WEB_SERVER_REUSE_PORT")?.unwrap_or(false),
            limits: Limits {
                max_body: count(config, "WEB_SERVER_MAX_BODY", 2 << 20)?,
                max_connections: count(config, "WEB_SERVER_MAX_CONNECTIONS", 4096)?,
                header_timeout: limit(config, "WEB_SERVER_HEADER_TIMEOUT", 10.0)?,
                body_timeout: limit(config, "WEB_SERVER_BODY_TIMEOUT", 30.0)?,
                send_timeout: limit(config, "WEB_SERVER_SEND_TIMEOUT", 30.0)?,
                keep_alive: seconds(config, "WEB_SERVER_KEEP_ALIVE", 75.0)?,
                worker_timeout: (!worker_timeout.is_zero()).then_some(worker_timeout),
                parts: PartLimits::from_config(config)?,
                stop_timeout: seconds(
                    config,
                    "stop_timeout",
                    crate::container::STOP_TIMEOUT.as_secs_f64(),
                )?,
            },
        })
    }
}

fn count(config: &Config, key: &str, default: usize) -> Result<usize, ConfigError> {
    match config.int(key)? {
        None => Ok(default),
        Some(number) => usize::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| config.invalid(key, "must be a whole number above 0")),
    }
}

fn seconds(config: &Config, key: &str, default: f64) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(config.float(key)?.unwrap_or(default))
        .map_err(|_| config.invalid(key, "must be a number of seconds, 0 or more"))
}

/// Reads a time that must not be zero.
fn limit(config: &Config, key: &str, default: f64) -> Result<Duration, ConfigError> {
    match seconds(config, key, default)? {
        Duration::ZERO => Err(config.invalid(key, "must be a number of seconds above 0")),
        limit => Ok(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_numbers_are_errors() {
        for (key, value) in [
            ("WEB_SERVER_MAX_BODY", 0.0),
            ("WEB_SERVER_MAX_CONNECTIONS", -1.0),
            ("WEB_SERVER_HEADER_TIMEOUT", 0.0),
            ("WEB_SERVER_BODY_TIMEOUT", -3.0),
            ("WEB_SERVER_SEND_TIMEOUT", 1e300),
            ("WEB_SERVER_KEEP_ALIVE", -0.1),
            ("WEB_SERVER_TIMEOUT", -1.0),
            ("WEB_SERVER_MAX_PARTS", 0.0),
            ("WEB_SERVER_MAX_PART_SIZE", -1.0),
        ] {
            let error = Settings::from_config(&Config::default().with(key, value)).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }

    #[test]
    fn zero_disables_optional_limits() {
        let config = Config::default()
            .with("WEB_SERVER_TIMEOUT", 0)
            .with("WEB_SERVER_KEEP_ALIVE", 0);
        let limits = Settings::from_config(&config).unwrap().limits;
        assert_eq!(limits.worker_timeout, None);
        assert!(limits.keep_alive.is_zero());
    }
}
