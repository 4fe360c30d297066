//! Limits of a container.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::{config::Config, error::Result, protocol};

/// Default maximum number of concurrent workers per container. Config key: `max_workers`.
pub const MAX_WORKERS: usize = 10;
/// Default time that `stop` waits for running workers. Config key: `stop_timeout`, in seconds.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits of a container, from its configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_workers: usize,
    pub(super) prefetch: u16,
    /// Maximum number of callers in the call id stack.
    pub(super) parents: usize,
    pub(super) stop_timeout: Duration,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let max_workers = positive(config, "max_workers")?.unwrap_or(MAX_WORKERS);
        let prefetch = positive(config, "prefetch_count")?.unwrap_or(max_workers);
        Ok(Self {
            max_workers: max_workers.min(Semaphore::MAX_PERMITS),
            prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
            parents: positive(config, "parent_calls_tracked")?
                .unwrap_or(protocol::PARENT_CALLS_TRACKED),
            stop_timeout: match config.float("stop_timeout")? {
                None => STOP_TIMEOUT,
                Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| {
                    config.invalid("stop_timeout", "must be a number of seconds, 0 or more")
                })?,
            },
        })
    }
}

/// Returns a positive number, or `None` for the default: as in Nameko, 0 and null are the default.
fn positive(config: &Config, key: &str) -> Result<Option<usize>> {
    match config.int(key)? {
        None | Some(0) => Ok(None),
        Some(number) => match usize::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(config.invalid(key, "must not be negative").into()),
        },
    }
}
