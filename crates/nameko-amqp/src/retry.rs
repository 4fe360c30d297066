//! Retries of a publish.

use std::time::Duration;

/// Retries of a publish after the connection was lost.
///
/// The default is three retries, one second apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Number of retries, `None` for no limit.
    pub max_retries: Option<u32>,
    /// Delay before the first retry.
    pub interval_start: Duration,
    /// Increase of the delay with each further retry.
    pub interval_step: Duration,
    /// Longest delay.
    pub interval_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: Some(3),
            interval_start: Duration::from_secs(1),
            interval_step: Duration::from_secs(1),
            interval_max: Duration::from_secs(1),
        }
    }
}

impl Retry {
    /// Returns `base` plus the delays before all retries: a time limit that leaves time for them.
    /// `None` if their number is unlimited.
    pub fn time_limit(&self, base: Duration) -> Option<Duration> {
        let retries = self.max_retries?;
        let first = |count: u32| (0..count).filter_map(|retry| self.delay(retry));
        // Delays are constant once they have grown to the longest.
        let counted = retries.min(1000);
        let growing = first(counted).fold(base, Duration::saturating_add);
        let rest = self.interval_max.saturating_mul(retries - counted);
        Some(growing.saturating_add(rest))
    }

    /// Returns the delay before retry number `retry`, counted from 0, `None` after the last one.
    pub(crate) fn delay(&self, retry: u32) -> Option<Duration> {
        if self.max_retries.is_some_and(|max| retry >= max) {
            return None;
        }
        let increase = self.interval_step.saturating_mul(retry);
        Some(
            self.interval_start
                .saturating_add(increase)
                .min(self.interval_max),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_and_end_after_the_last_retry() {
        let retry = Retry {
            max_retries: Some(4),
            interval_start: Duration::from_secs(2),
            interval_step: Duration::from_secs(1),
            interval_max: Duration::from_secs(4),
        };
        let delays: Vec<_> = (0..6)
            .map(|n| retry.delay(n).map(|delay| delay.as_secs()))
            .collect();
        assert_eq!(delays, [Some(2), Some(3), Some(4), Some(4), None, None]);
        let base = Duration::from_secs(20);
        assert_eq!(retry.time_limit(base), Some(Duration::from_secs(33)));
        let unlimited = Retry {
            max_retries: None,
            ..Retry::default()
        };
        assert_eq!(unlimited.time_limit(base), None);
        assert_eq!(unlimited.delay(u32::MAX), Some(Duration::from_secs(1)));
    }
}
