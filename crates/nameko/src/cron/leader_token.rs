//! How the members of a fleet tell each other what is done: the tokens in their queue, and what follows from them.
//!
//! No clock, no I/O: tokens in, decisions out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many instances try one time. A method that takes its process down must not take down the whole fleet.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// The message that a fleet's queue holds: what is done, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderToken {
    /// Who sent it.
    pub(crate) member: String,
    /// Its number among its sender's.
    pub(crate) serial: u64,
    /// What is done.
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// How far a fleet has got with a cron line. The greater one knows more.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The times up to this one are done with.
    pub(crate) last: Option<Timestamp>,
    /// The time after that which is being run.
    pub(crate) running: Option<Attempt>,
}

/// One instance's attempt to run a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The time.
    pub(crate) at: Timestamp,
    /// 1 for the first instance, 2 for the one that takes over from it.
    pub(crate) number: u32,
    /// Who runs it.
    pub(crate) member: String,
}

impl Progress {
    /// The attempt that `member` makes at the time `at`. `None` when too many died of it already.
    pub(crate) fn attempt(&self, at: Timestamp, member: &str) -> Option<Attempt> {
        let number = match &self.running {
            // Announced, and not begun: an attempt that has begun ends in `done`, or with its member.
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

    /// Nothing before `at`, or at it, is to be run any more.
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
    fn who_knows_of_a_later_run_or_a_later_attempt_knows_more() {
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
        // What is done stays done.
        at_four.done(three);
        assert_eq!(at_four.last, Some(four));
        nothing.done(three);
        assert_eq!(nothing, at_three);
    }

    #[test]
    fn each_instance_that_takes_over_counts_and_the_count_ends() {
        let four = time("2026-03-01T04:00:00Z");
        let mut progress = Progress::default();
        for (member, number) in [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("c", 3)] {
            let attempt = progress.attempt(four, member).expect("an attempt");
            assert_eq!(attempt.number, number);
            progress.running = Some(attempt);
        }
        assert_eq!(progress.attempt(four, "d"), None);
        // Another time is tried anew.
        let five = time("2026-03-01T05:00:00Z");
        assert_eq!(progress.attempt(five, "d").map(|it| it.number), Some(1));
    }

    #[test]
    fn a_token_reads_as_json() {
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
