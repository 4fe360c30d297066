//! Calculation of the times of a cron expression. Free of clocks and I/O.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::expression;

/// Maximum tolerated clock skew. A last run further in the future was recorded by a wrong clock.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Minimum of [`Cron::late`](super::Cron::late), since a run never starts exactly on time.
pub(crate) const MIN_LATENESS: Duration = Duration::from_secs(10);

/// A cron expression in a time zone.
///
/// Daylight saving time is handled as in Vixie cron. Fixed times (`30 2 * * *`) run once a day: a
/// skipped time runs right after the change, and a repeated time runs at its first occurrence.
/// Expressions with `*` or a step in hour, minute or second follow elapsed time: a skipped hour has
/// no runs, and a repeated hour has runs in both occurrences.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    line: croner::Cron,
    zone: TimeZone,
}

/// The next action of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Run for this time now.
    Run(Timestamp),
    /// Wait until this time.
    Wait(Timestamp),
    /// No more times before the end of the calendar.
    Never,
}

impl Schedule {
    /// Parses a cron expression of five fields, or six with seconds first, and the IANA name of a
    /// time zone.
    ///
    /// # Errors
    /// If one of both is invalid, a message for users.
    pub(crate) fn parse(line: &str, zone: &str) -> Result<Self, String> {
        Ok(Self {
            line: expression::parse(line)?,
            zone: expression::time_zone(zone)?,
        })
    }

    /// Returns the first time after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // The search of `croner` fails if the clocks skip more than two hours. Some zones have
        // skipped a whole day.
        (0..=3).find_map(|skip| {
            let after = after
                .checked_add(SignedDuration::from_hours(12 * skip))
                .ok()?;
            let after = after.to_zoned(self.zone.clone());
            let next = self.line.find_next_occurrence(&after, false).ok()?;
            Some(next.timestamp())
        })
    }

    /// Returns the last time at or before `until`.
    pub(crate) fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        let until = until.to_zoned(self.zone.clone());
        let latest = self.line.find_previous_occurrence(&until, true).ok()?;
        Some(latest.timestamp())
    }

    /// Returns the action at the time `now`, if all times up to `last` are done. Of several missed
    /// times, only the latest is run, unless it is more than `late` ago.
    pub(crate) fn plan(&self, last: Timestamp, now: Timestamp, late: Duration) -> Plan {
        let late = late.max(MIN_LATENESS);
        match self.latest(now) {
            Some(latest) if latest > last && ago(now, latest) <= late => Plan::Run(latest),
            _ => self.next(last.max(now)).map_or(Plan::Never, Plan::Wait),
        }
    }

    /// Returns `true` if a time between `last` and `at` is skipped by running `at`.
    pub(crate) fn skips(&self, last: Timestamp, at: Timestamp) -> bool {
        self.next(last).is_some_and(|next| next < at)
    }
}

/// Returns `true` if a last run is too far in the future to be valid: the clock was wrong when it
/// was recorded, or is wrong now.
pub(crate) fn exceeds_clock_skew(last: Timestamp, now: Timestamp) -> bool {
    ago(last, now) > MAX_CLOCK_SKEW
}

/// Returns the time from `then` to `now`, or zero if `then` is later.
fn ago(now: Timestamp, then: Timestamp) -> Duration {
    let since: SignedDuration = now.duration_since(then);
    since.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Returns the next times after `from` as `MM-DD HH:MM:SS` and the offset from UTC.
    fn times(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(line, zone).expect("a schedule");
        let mut at = time(from);
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).expect("a next time");
            assert_eq!(
                schedule.latest(at),
                Some(at),
                "`latest` is the inverse of `next`"
            );
            let local = at.to_zoned(schedule.zone.clone());
            times.push(local.strftime("%m-%d %H:%M:%S %:z").to_string());
        }
        times
    }

    #[test]
    fn an_expression_applies_in_its_time_zone() {
        let table: &[(&str, &str, &str, &[&str])] = &[
            (
                "0 3 * * *",
                "UTC",
                "2026-03-01T02:59:59Z",
                &["03-01 03:00:00 +00:00", "03-02 03:00:00 +00:00"],
            ),
            (
                "0 3 * * *",
                "Asia/Kolkata",
                "2026-03-01T00:00:00Z",
                &["03-02 03:00:00 +05:30"],
            ),
            (
                "*/20 9-10 * * MON-FRI",
                "America/New_York",
                "2026-03-06T15:20:00Z",
                &["03-06 10:40:00 -05:00", "03-09 09:00:00 -04:00"],
            ),
            (
                "30 0 12 L * *",
                "UTC",
                "2028-02-01T00:00:00Z",
                &["02-29 12:00:30 +00:00"],
            ),
            // Either day may match.
            (
                "0 0 13 * FRI",
                "UTC",
                "2026-03-06T00:00:00Z",
                &["03-13 00:00:00 +00:00", "03-20 00:00:00 +00:00"],
            ),
            (
                "@hourly",
                "UTC",
                "2026-03-06T00:00:00Z",
                &["03-06 01:00:00 +00:00"],
            ),
        ];
        for (line, zone, from, expected) in table {
            assert_eq!(times(line, zone, from, expected.len()), *expected, "{line}");
        }
    }

    /// London skips 01:00 to 02:00 on 2026-03-29 and repeats it on 2026-10-25.
    #[test]
    fn a_skipped_fixed_time_runs_right_after_and_a_skipped_step_does_not_run() {
        let from = "2026-03-28T12:00:00Z";
        assert_eq!(
            times("30 1 * * *", "Europe/London", from, 2),
            ["03-29 02:00:00 +01:00", "03-30 01:30:00 +01:00"]
        );
        assert_eq!(
            times("*/30 0-2 * * *", "Europe/London", from, 5),
            [
                "03-29 00:00:00 +00:00",
                "03-29 00:30:00 +00:00",
                "03-29 02:00:00 +01:00",
                "03-29 02:30:00 +01:00",
                "03-30 00:00:00 +01:00"
            ]
        );
    }

    #[test]
    fn a_repeated_fixed_time_runs_once_and_a_repeated_step_twice() {
        let from = "2026-10-24T23:15:00Z";
        assert_eq!(
            times("30 1 * * *", "Europe/London", from, 2),
            ["10-25 01:30:00 +01:00", "10-26 01:30:00 +00:00"]
        );
        assert_eq!(
            times("*/30 0-2 * * *", "Europe/London", from, 6),
            [
                "10-25 00:30:00 +01:00",
                "10-25 01:00:00 +01:00",
                "10-25 01:30:00 +01:00",
                "10-25 01:00:00 +00:00",
                "10-25 01:30:00 +00:00",
                "10-25 02:00:00 +00:00"
            ]
        );
    }

    /// Lord Howe Island changes its clocks by half an hour; Kiritimati skipped a day.
    #[test]
    fn half_hour_changes_and_skipped_days_are_supported() {
        assert_eq!(
            times(
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T00:00:00Z",
                2
            ),
            ["10-04 02:30:00 +11:00", "10-05 02:15:00 +11:00"]
        );
        assert_eq!(
            times(
                "0 12 * * *",
                "Pacific/Kiritimati",
                "1994-12-30T00:00:00Z",
                2
            ),
            ["12-30 12:00:00 -10:00", "01-01 12:00:00 +14:00"]
        );
    }

    #[test]
    fn invalid_arguments_are_errors_with_a_reason() {
        for (line, zone, expected) in [
            (
                "61 * * * *",
                "UTC",
                "invalid cron expression `61 * * * *`: `61` is not a valid minute",
            ),
            (
                "every day",
                "UTC",
                "invalid cron expression `every day`: expected five fields",
            ),
            ("", "UTC", "invalid cron expression ``: "),
            (
                "*/0 * * * *",
                "UTC",
                "invalid cron expression `*/0 * * * *`: `*/0` is not a valid minute",
            ),
            (
                "0 3 1 1 * * 2020",
                "UTC",
                "invalid cron expression `0 3 1 1 * * 2020`: expected five fields",
            ),
            (
                "0 0 30 2 *",
                "UTC",
                "the cron expression `0 0 30 2 *` never matches a date",
            ),
            (
                "0 3 * * *",
                "Europe/Londn",
                "unknown time zone `Europe/Londn`",
            ),
            ("0 3 * * *", "", "unknown time zone ``"),
        ] {
            let error = Schedule::parse(line, zone).expect_err(line);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_latest_missed_time_is_run_unless_it_is_too_late() {
        let schedule = Schedule::parse("0 * * * *", "UTC").expect("a schedule");
        let late = Duration::from_secs(600);
        let at = |clock: &str| time(&format!("2026-03-01T{clock}Z"));
        for (last, now, expected) in [
            ("09:00:00", "09:59:59", Plan::Wait(at("10:00:00"))),
            ("09:00:00", "10:00:00", Plan::Run(at("10:00:00"))),
            ("09:00:00", "10:10:00", Plan::Run(at("10:00:00"))),
            ("09:00:00", "10:10:01", Plan::Wait(at("11:00:00"))),
            // The latest of many missed times.
            ("05:00:00", "10:00:30", Plan::Run(at("10:00:00"))),
            ("05:00:00", "10:30:00", Plan::Wait(at("11:00:00"))),
            // Started between two times.
            ("09:30:00", "09:30:00", Plan::Wait(at("10:00:00"))),
            // Run before by an instance whose clock is ahead.
            ("10:00:00", "09:59:50", Plan::Wait(at("11:00:00"))),
        ] {
            assert_eq!(
                schedule.plan(at(last), at(now), late),
                expected,
                "{last} {now}"
            );
        }
        // Never checked exactly on time.
        for (now, expected) in [
            ("10:00:00.003", Plan::Run(at("10:00:00"))),
            ("10:00:10", Plan::Run(at("10:00:00"))),
            ("10:00:11", Plan::Wait(at("11:00:00"))),
        ] {
            assert_eq!(
                schedule.plan(at("09:30:00"), at(now), Duration::ZERO),
                expected,
                "{now}"
            );
        }
        // Small clock differences are tolerated; hours are not.
        assert!(!exceeds_clock_skew(at("10:59:00"), at("10:00:00")));
        assert!(exceeds_clock_skew(at("11:00:01"), at("10:00:00")));
        assert!(!exceeds_clock_skew(at("05:00:00"), at("10:00:00")));
        assert!(schedule.skips(at("05:00:00"), at("10:00:00")));
        assert!(!schedule.skips(at("09:00:00"), at("10:00:00")));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in "[ -~]{0,30}", zone in "[ -~]{0,12}") {
            let _ = Schedule::parse(&line, &zone);
        }

        #[test]
        fn a_time_is_run_once_however_often_it_is_checked(
            minutes in 1_u8..60,
            steps in proptest::collection::vec(1_i64..5000, 1..60),
        ) {
            let schedule = Schedule::parse(&format!("*/{minutes} * * * *"), "Europe/London").expect("a schedule");
            // The night with a repeated hour.
            let mut now = time("2026-10-24T22:00:00Z");
            let mut last = now;
            let mut ran = Vec::new();
            for step in steps {
                now += SignedDuration::from_secs(step);
                while let Plan::Run(at) = schedule.plan(last, now, Duration::MAX) {
                    prop_assert!(at <= now && at > last);
                    ran.push(at);
                    last = at;
                }
                let waits = matches!(schedule.plan(last, now, Duration::MAX), Plan::Wait(at) if at > now);
                prop_assert!(waits);
            }
            let mut once = ran.clone();
            once.dedup();
            prop_assert_eq!(once, ran);
        }
    }
}
