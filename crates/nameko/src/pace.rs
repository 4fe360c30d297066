//! Durations of a method's polls, from which its thread is chosen.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

/// Longest average poll of a method that the I/O thread runs. Distributing longer ones over threads
/// costs little in comparison.
const SHORT: Duration = Duration::from_micros(250);

/// Longest poll that counts in full: a thread may have waited for a CPU meanwhile.
const MAX_COUNTED: Duration = Duration::from_millis(2);

/// Duration from which a poll keeps its method off the I/O thread for some time.
const LONG: Duration = Duration::from_millis(10);

/// Number of short polls after which a long one is forgiven. It doubles with each further one.
const PROBATION: u32 = 256;

/// Number of times that the probation doubles.
const MAX_DOUBLINGS: u32 = 8;

/// Average of a method that has not been polled yet.
const UNKNOWN: u32 = u32::MAX;

/// The observed durations of one method's polls.
pub(crate) struct Pace {
    /// Moving average, in nanoseconds.
    average: AtomicU32,
    long_polls: AtomicU32,
    /// Number of short polls to go until a long one is forgiven.
    probation: AtomicU32,
    blocks: AtomicBool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            average: AtomicU32::new(UNKNOWN),
            long_polls: AtomicU32::new(0),
            probation: AtomicU32::new(0),
            blocks: AtomicBool::new(false),
        }
    }
}

impl Pace {
    /// Records a completed poll.
    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u32::try_from(duration.min(MAX_COUNTED).as_nanos()).unwrap_or(UNKNOWN);
        // Updates that are lost among threads do not matter.
        let average = match self.average.load(Ordering::Relaxed) {
            UNKNOWN => nanos,
            average => average - average / 4 + nanos / 4,
        };
        self.average.store(average, Ordering::Relaxed);
        let probation = self.probation.load(Ordering::Relaxed);
        if duration >= LONG {
            let doublings = self.long_polls.fetch_add(1, Ordering::Relaxed);
            let further = PROBATION << doublings.min(MAX_DOUBLINGS);
            self.probation
                .store(further.max(probation), Ordering::Relaxed);
        } else if probation > 0 {
            self.probation.store(probation - 1, Ordering::Relaxed);
            if probation == 1 {
                self.blocks.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Records a poll that overstays on the I/O thread.
    pub(crate) fn record_long(&self) {
        self.probation.fetch_max(PROBATION, Ordering::Relaxed);
    }

    /// Records a poll that blocks its thread. Forgiven after very many short polls.
    pub(crate) fn record_blocking(&self) {
        let probation = PROBATION << MAX_DOUBLINGS;
        self.probation.store(probation, Ordering::Relaxed);
        self.blocks.store(true, Ordering::Relaxed);
    }

    /// Returns the average duration of the polls if the I/O thread may run the method.
    pub(crate) fn short(&self) -> Option<Duration> {
        let average = Duration::from_nanos(self.average.load(Ordering::Relaxed).into());
        let is_short = average <= SHORT
            && self.probation.load(Ordering::Relaxed) == 0
            && !self.blocks.load(Ordering::Relaxed);
        is_short.then_some(average)
    }

    /// Returns whether the method is known to block its thread.
    pub(crate) fn blocks(&self) -> bool {
        self.blocks.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(10);

    #[test]
    fn a_method_is_short_after_a_short_poll_until_its_average_is_not() {
        let pace = Pace::default();
        assert_eq!(pace.short(), None, "unknown");
        pace.record(QUICK);
        assert_eq!(pace.short(), Some(QUICK));
        for _ in 0..20 {
            pace.record(Duration::from_millis(1));
        }
        assert_eq!(pace.short(), None);
        for _ in 0..20 {
            pace.record(QUICK);
        }
        assert!(pace.short().is_some());
    }

    #[test]
    fn a_long_poll_is_forgiven_later_each_time() {
        let pace = Pace::default();
        for times in [1, 2, 4] {
            pace.record(LONG);
            for _ in 0..times * PROBATION {
                assert_eq!(pace.short(), None);
                pace.record(QUICK);
            }
            assert!(pace.short().is_some());
        }
    }

    #[test]
    fn a_blocking_poll_is_not_forgiven_soon() {
        let pace = Pace::default();
        pace.record_blocking();
        pace.record(Duration::from_secs(2));
        for _ in 0..2 * PROBATION {
            pace.record(QUICK);
        }
        assert!(pace.blocks());
        assert_eq!(pace.short(), None);
    }
}
