//! Exponential backoff with jitter.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use crate::error::Error;

/// Exponential backoff with jitter.
///
/// Delays double from 200 ms to 30 s, those of the reconnects of this crate to 2 s. Each is
/// shortened at random by up to a quarter, so that the clients of a restarted broker do not
/// reconnect at the same moment.
///
/// ```
/// use nameko_amqp::Backoff;
///
/// let mut backoff = Backoff::default();
/// let first = backoff.next_delay();
/// assert!(first.as_millis() <= 200 && first.as_millis() >= 150);
/// assert!(backoff.next_delay() > first);
/// backoff.reset();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The first delay, before jitter.
    pub const INITIAL_DELAY: Duration = Duration::from_millis(200);

    /// The longest delay.
    pub const MAX_DELAY: Duration = Duration::from_secs(30);

    /// Longest delay of a reconnect, before jitter.
    pub(crate) const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

    /// Longest delay after a broker refused the login: somebody has to change something first.
    pub(crate) const MAX_REFUSED_DELAY: Duration = Duration::from_secs(10);

    /// Records a failure and returns the delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.next_delay_up_to(Self::MAX_DELAY)
    }

    /// Like [`next_delay`](Self::next_delay), for a reconnect after `error`.
    pub(crate) fn next_reconnect(&mut self, error: &Error) -> Duration {
        self.next_delay_up_to(match error {
            Error::AccessRefused { .. } | Error::NotAllowed { .. } | Error::Tls { .. } => {
                Self::MAX_REFUSED_DELAY
            }
            _ => Self::MAX_RECONNECT_DELAY,
        })
    }

    fn next_delay_up_to(&mut self, longest: Duration) -> Duration {
        let delay = delay(self.failures, longest, random());
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Records a success: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns the delay after a number of failures. `jitter` shortens it: 0 not at all, `u32::MAX` by
/// a quarter.
fn delay(failures: u32, longest: Duration, jitter: u32) -> Duration {
    let full = 2u32
        .checked_pow(failures)
        .and_then(|factor| Backoff::INITIAL_DELAY.checked_mul(factor))
        .map_or(longest, |delay| delay.min(longest));
    full - full.mul_f64(f64::from(jitter) / f64::from(u32::MAX) / 4.0)
}

fn random() -> u32 {
    // Each `RandomState` has a different seed.
    (RandomState::new().hash_one(()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_thirty_seconds() {
        let delays: Vec<u128> = (0..9)
            .map(|failures| delay(failures, Backoff::MAX_DELAY, 0).as_millis())
            .collect();
        assert_eq!(
            delays,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]
        );
        assert_eq!(delay(u32::MAX, Backoff::MAX_DELAY, 0), Backoff::MAX_DELAY);
        assert_eq!(delay(0, Backoff::MAX_DELAY, u32::MAX).as_millis(), 150);
    }

    #[test]
    fn an_outage_is_over_two_seconds_after_the_broker_is_back() {
        let mut backoff = Backoff::default();
        let longest = (0..20)
            .map(|_| backoff.next_reconnect(&Error::Stopped))
            .max();
        assert!(longest <= Some(Backoff::MAX_RECONNECT_DELAY), "{longest:?}");
    }
}
