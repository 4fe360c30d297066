//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const INITIAL_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Waits that double from 200 ms to 30 s, each shortened at random by up to a quarter so that the clients of a broker that
/// comes back do not all come at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = wait(self.failures, random());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// It worked: begin again with the shortest wait.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `random` shortens: 0 not at all, `u32::MAX` by a quarter.
fn wait(failures: u32, random: u32) -> Duration {
    let full = 2u32
        .checked_pow(failures)
        .and_then(|factor| INITIAL_DELAY.checked_mul(factor))
        .map_or(MAX_DELAY, |wait| wait.min(MAX_DELAY));
    full - full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 4.0)
}

fn random() -> u32 {
    // Each `RandomState` is seeded differently.
    (RandomState::new().hash_one(()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let waits: Vec<u128> = (0..9)
            .map(|failures| wait(failures, 0).as_millis())
            .collect();
        assert_eq!(
            waits,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]
        );
        assert_eq!(wait(u32::MAX, 0), MAX_DELAY);
        assert_eq!(wait(0, u32::MAX).as_millis(), 150);
    }
}
