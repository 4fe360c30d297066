//! What the configuration says about the web server.

use std::time::Duration;

use super::address::BindAddress;
use crate::config::{Config, ConfigError};

/// The settings of one container's web server.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) address: BindAddress,
    /// Whether other processes may listen on the same port, and share its connections. `WEB_SERVER_REUSE_PORT`.
    pub(super) reuse_port: bool,
    pub(super) limits: Limits,
}

/// What a client may ask for. Times are seconds in the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of a request's body. `WEB_SERVER_MAX_BODY`.
    pub(super) max_body: usize,
    /// Connections open at a time. `WEB_SERVER_MAX_CONNECTIONS`.
    pub(super) max_connections: usize,
    /// For the head of a request to arrive. `WEB_SERVER_HEADER_TIMEOUT`.
    pub(super) header_timeout: Duration,
    /// For the body of a request to arrive. `WEB_SERVER_BODY_TIMEOUT`.
    pub(super) body_timeout: Duration,
    /// For a client to take more of a response. `WEB_SERVER_SEND_TIMEOUT`.
    pub(super) send_timeout: Duration,
    /// For the next request on an open connection; zero closes after each. `WEB_SERVER_KEEP_ALIVE`.
    pub(super) keep_alive: Duration,
    /// For a worker to answer; none where it is 0. `WEB_SERVER_TIMEOUT`.
    pub(super) worker_timeout: Option<Duration>,
    /// For running requests, when the container stops. `stop_timeout`.
    pub(super) stop_timeout: Duration,
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
            .filter(|it| *it > 0)
            .ok_or_else(|| config.invalid(key, "must be a whole number above 0")),
    }
}

fn seconds(config: &Config, key: &str, default: f64) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(config.float(key)?.unwrap_or(default))
        .map_err(|_| config.invalid(key, "must be a number of seconds, 0 or more"))
}

/// A time that cannot be nothing.
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
    fn numbers_that_make_no_sense_are_refused() {
        for (key, value) in [
            ("WEB_SERVER_MAX_BODY", 0.0),
            ("WEB_SERVER_MAX_CONNECTIONS", -1.0),
            ("WEB_SERVER_HEADER_TIMEOUT", 0.0),
            ("WEB_SERVER_BODY_TIMEOUT", -3.0),
            ("WEB_SERVER_SEND_TIMEOUT", 1e300),
            ("WEB_SERVER_KEEP_ALIVE", -0.1),
            ("WEB_SERVER_TIMEOUT", -1.0),
        ] {
            let error = Settings::from_config(&Config::default().with(key, value)).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }

    #[test]
    fn zero_turns_off_what_can_be_off() {
        let config = Config::default()
            .with("WEB_SERVER_TIMEOUT", 0)
            .with("WEB_SERVER_KEEP_ALIVE", 0);
        let limits = Settings::from_config(&config).unwrap().limits;
        assert_eq!(limits.worker_timeout, None);
        assert!(limits.keep_alive.is_zero());
    }
}
