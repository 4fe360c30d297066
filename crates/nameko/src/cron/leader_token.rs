//! Leader tokens: the progress of a schedule, exchanged between instances through a queue. Free of
//! clocks and I/O.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Maximum number of instances that attempt the same time, so that a method that crashes its
/// process does not crash every instance.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// The message in the queue: the progress known to its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderToken {
    /// Id of the sender.
    pub(crate) member: String,
    /// Serial number, per sender.
    pub(crate) serial: u64,
    /// The progress.
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// Progress of a schedule. Ordered: a greater one is more recent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// All times up to this one are done.
    pub(crate) last: Option<Timestamp>,
    /// The attempt in progress, for a later time.
    pub(crate) running: Option<Attempt>,
}

/// An attempt of an instance to run a scheduled time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The scheduled time.
    pub(crate) at: Timestamp,
    /// 1 for the first instance, 2 for its successor.
    pub(crate) number: u32,
    /// Id of the instance.
    pub(crate) member: String,
}

impl Progress {
    /// Returns the attempt of `member` for the time `at`, or `None` after too many attempts.
    pub(crate) fn attempt(&self, at: Timestamp, member: &str) -> Option<Attempt> {
        let number = match &self.running {
            // Announced but not begun: an attempt that began ends with `done`, or with its member.
            Some(mine) if mine.at == at && mine.member == member => mine.number,
            Some(other) if other.at == at => other.number.saturating_add(1),
            _ => 1,
        };
        (number <= MAX_ATTEMPTS).then(|| Attempt {
            at,
            number,
            member: member.to_owned(),
        })
    }

    /// Records that all times up to `at` are done.
    pub(crate) fn done(&mut self, at: Timestamp) {
        self.last = self.last.max(Some(at));
        self.running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_later_run_or_attempt_is_more_recent_progress() {
        let (three, four) = (time("2026-03-01T03:00:00Z"), time("2026-03-01T04:00:00Z"));
        let mut nothing = Progress::default();
        let at_three = Progress {
            last: Some(three),
            running: None,
        };
        let first = Progress {
            running: at_three.attempt(four, "a"),
            ..at_three.clone()
        };
        let second = Progress {
            running: first.attempt(four, "b"),
            ..at_three.clone()
        };
        let mut at_four = second.clone();
        at_four.done(four);
        assert!(nothing < at_three && at_three < first && first < second && second < at_four);
        assert_eq!(at_four.running, None);
        // Progress never decreases.
        at_four.done(three);
        assert_eq!(at_four.last, Some(four));
        nothing.done(three);
        assert_eq!(nothing, at_three);
    }

    #[test]
    fn attempts_of_successive_instances_are_counted_and_limited() {
        let four = time("2026-03-01T04:00:00Z");
        let mut progress = Progress::default();
        for (member, number) in [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("c", 3)] {
            let attempt = progress.attempt(four, member).expect("an attempt");
            assert_eq!(attempt.number, number);
            progress.running = Some(attempt);
        }
        assert_eq!(progress.attempt(four, "d"), None);
        // Another time starts a new count.
        let five = time("2026-03-01T05:00:00Z");
        assert_eq!(
            progress.attempt(five, "d").map(|attempt| attempt.number),
            Some(1)
        );
    }

    #[test]
    fn a_token_serializes_as_json() {
        let token = LeaderToken {
            member: "m".to_owned(),
            serial: 2,
            progress: Progress {
                last: Some(time("2026-03-01T03:00:00Z")),
                running: None,
            },
        };
        let json = serde_json::to_string(&token).expect("JSON");
        assert_eq!(
            json,
            r#"{"member":"m","serial":2,"last":"2026-03-01T03:00:00Z","running":null}"#
        );
        assert_eq!(
            serde_json::from_str::<LeaderToken>(&json).expect("a token"),
            token
        );
    }
}
