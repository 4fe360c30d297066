//! When a cron line is due. No clock, no I/O: times in, times out.

use std::time::Duration;

use croner::parser::{CronParser, Year};
use jiff::{
    SignedDuration, Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

/// A last run that lies further in the future than this was noted by a clock that was wrong.
const WRONG_CLOCK: Duration = Duration::from_secs(3600);

/// What is run that soon after its time is not late: nobody looks at the clock at the very moment.
pub(crate) const PROMPT: Duration = Duration::from_secs(10);

/// A cron line in a time zone.
///
/// Daylight saving time, as Vixie cron has it: a line of fixed times (`30 2 * * *`) runs once a day. Where the clocks skip its
/// time, it runs when they have; where they come by it twice, at the first. A line with `*` or a step in hour, minute or
/// second goes by real time: nothing is due in the hour that is skipped, and the hour that comes twice counts twice.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    line: croner::Cron,
    zone: TimeZone,
}

/// What to do at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Run for this time, which has come.
    Run(Timestamp),
    /// Nothing before this time.
    Wait(Timestamp),
    /// Nothing ever: the calendar ends.
    Never,
}

impl Schedule {
    /// Reads a line of five fields, or six with seconds first, and the IANA name of a time zone.
    ///
    /// # Errors
    /// In a user's words: what is wrong, and with which of both.
    pub(crate) fn parse(line: &str, zone: &str) -> Result<Self, String> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let schedule = Self {
            line: parser.parse(line).map_err(|_| {
                let reason = reason(&parser, line);
                format!("the cron line `{line}` does not parse: {reason}")
            })?,
            // Time zones change by law, so the machine's database comes first; the one built in is for machines without.
            zone: TimeZone::get(zone)
                .or_else(|_| TimeZoneDatabase::bundled().get(zone))
                .map_err(|_| {
                    format!(
                        "there is no time zone `{zone}`: give an IANA name such as `Europe/London`"
                    )
                })?,
        };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!(
                "the cron line `{line}` names a day that never comes"
            )),
        }
    }

    /// The first time due after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // The search gives up where the clocks skip more than two hours. A few places have skipped a whole day.
        (0..=3).find_map(|skip| {
            let after = after
                .checked_add(SignedDuration::from_hours(12 * skip))
                .ok()?;
            let after = after.to_zoned(self.zone.clone());
            let next = self.line.find_next_occurrence(&after, false).ok()?;
            Some(next.timestamp())
        })
    }

    /// The last time due at `until` or before.
    pub(crate) fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        let until = until.to_zoned(self.zone.clone());
        let latest = self.line.find_previous_occurrence(&until, true).ok()?;
        Some(latest.timestamp())
    }

    /// What to do `now`, when the times up to `last` are done with. Of the times that were missed only the latest is run, once,
    /// if it is no more than `late` ago.
    pub(crate) fn plan(&self, last: Timestamp, now: Timestamp, late: Duration) -> Plan {
        let late = late.max(PROMPT);
        match self.latest(now) {
            Some(latest) if latest > last && ago(now, latest) <= late => Plan::Run(latest),
            _ => self.next(last.max(now)).map_or(Plan::Never, Plan::Wait),
        }
    }

    /// Whether a time between `last` and `at` is passed over when `at` is run.
    pub(crate) fn skips(&self, last: Timestamp, at: Timestamp) -> bool {
        self.next(last).is_some_and(|it| it < at)
    }
}

/// Whether the time of a last run tells nothing, since it lies too far in the future: a clock was wrong when it was noted, or
/// is now.
pub(crate) fn is_wrong(last: Timestamp, now: Timestamp) -> bool {
    ago(last, now) > WRONG_CLOCK
}

/// How long before `now` it was; nothing where it was not.
fn ago(now: Timestamp, then: Timestamp) -> Duration {
    let since: SignedDuration = now.duration_since(then);
    since.try_into().unwrap_or_default()
}

/// What each field of a line is, seconds first.
const FIELDS: [&str; 6] = [
    "second",
    "minute",
    "hour",
    "day of month",
    "month",
    "day of week",
];

/// Why a line does not parse: the first field that is none by itself, or how many there are.
fn reason(parser: &CronParser, line: &str) -> String {
    let fields: Vec<_> = line.split_whitespace().collect();
    let names = match fields.len() {
        1 if line.starts_with('@') => return "there is no such word".to_owned(),
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        count => {
            let counted = match count {
                1 => "1 field".to_owned(),
                _ => format!("{count} fields"),
            };
            return format!(
                "it has {counted}, not five (minute, hour, day of month, month, day of week), or six with seconds first"
            );
        }
    };
    let mut each = fields.iter().zip(names).enumerate();
    let wrong = each.find(|(at, (field, _))| {
        let mut alone = vec!["*"; fields.len()];
        alone[*at] = field;
        parser.parse(&alone.join(" ")).is_err()
    });
    match wrong {
        Some((_, (field, name))) => format!("`{field}` is no {name}"),
        None => "its fields do not go together".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The times of a line from `from` on, as `MM-DD HH:MM:SS` and the offset from UTC.
    fn times(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(line, zone).expect("a schedule");
        let mut at = time(from);
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).expect("a next time");
            assert_eq!(schedule.latest(at), Some(at), "backwards as forwards");
            let local = at.to_zoned(schedule.zone.clone());
            times.push(local.strftime("%m-%d %H:%M:%S %:z").to_string());
        }
        times
    }

    #[test]
    fn a_line_is_meant_in_its_time_zone() {
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
            // Either day is enough.
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

    /// London skips 01:00 to 02:00 on 2026-03-29 and has it twice on 2026-10-25.
    #[test]
    fn where_the_clocks_skip_an_hour_a_fixed_time_runs_right_after_and_a_step_goes_on() {
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
    fn where_an_hour_comes_twice_a_fixed_time_runs_at_the_first_and_a_step_in_both() {
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

    /// Lord Howe Island moves its clocks by half an hour; Kiritimati left out a day.
    #[test]
    fn odd_zones_are_gone_through_too() {
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
    fn what_cannot_be_is_refused_with_what_is_wrong() {
        for (line, zone, expected) in [
            (
                "61 * * * *",
                "UTC",
                "the cron line `61 * * * *` does not parse: `61` is no minute",
            ),
            (
                "every day",
                "UTC",
                "the cron line `every day` does not parse: it has 2 fields, not five",
            ),
            ("", "UTC", "the cron line `` does not parse"),
            (
                "*/0 * * * *",
                "UTC",
                "the cron line `*/0 * * * *` does not parse: `*/0` is no minute",
            ),
            (
                "0 3 1 1 * * 2020",
                "UTC",
                "the cron line `0 3 1 1 * * 2020` does not parse: it has 7 fields",
            ),
            (
                "0 0 30 2 *",
                "UTC",
                "the cron line `0 0 30 2 *` names a day that never comes",
            ),
            (
                "0 3 * * *",
                "Europe/Londn",
                "there is no time zone `Europe/Londn`",
            ),
            ("0 3 * * *", "", "there is no time zone ``"),
        ] {
            let error = Schedule::parse(line, zone).expect_err(line);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn what_is_due_is_the_latest_time_that_was_not_run_unless_it_is_too_late() {
        let schedule = Schedule::parse("0 * * * *", "UTC").expect("a schedule");
        let late = Duration::from_secs(600);
        let at = |clock: &str| time(&format!("2026-03-01T{clock}Z"));
        for (last, now, expected) in [
            ("09:00:00", "09:59:59", Plan::Wait(at("10:00:00"))),
            ("09:00:00", "10:00:00", Plan::Run(at("10:00:00"))),
            ("09:00:00", "10:10:00", Plan::Run(at("10:00:00"))),
            ("09:00:00", "10:10:01", Plan::Wait(at("11:00:00"))),
            // Of many that were missed, the latest.
            ("05:00:00", "10:00:30", Plan::Run(at("10:00:00"))),
            ("05:00:00", "10:30:00", Plan::Wait(at("11:00:00"))),
            // Begun between two times.
            ("09:30:00", "09:30:00", Plan::Wait(at("10:00:00"))),
            // An instance whose clock is ahead ran it before.
            ("10:00:00", "09:59:50", Plan::Wait(at("11:00:00"))),
        ] {
            assert_eq!(
                schedule.plan(at(last), at(now), late),
                expected,
                "{last} {now}"
            );
        }
        // Nobody is there at the very moment.
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
        // An instance may be ahead of another; one that is hours ahead has a clock that is wrong.
        assert!(!is_wrong(at("10:59:00"), at("10:00:00")));
        assert!(is_wrong(at("11:00:01"), at("10:00:00")));
        assert!(!is_wrong(at("05:00:00"), at("10:00:00")));
        assert!(schedule.skips(at("05:00:00"), at("10:00:00")));
        assert!(!schedule.skips(at("09:00:00"), at("10:00:00")));
    }

    proptest! {
        #[test]
        fn no_line_and_no_time_panics(line in "[ -~]{0,30}", zone in "[ -~]{0,12}") {
            let _ = Schedule::parse(&line, &zone);
        }

        #[test]
        fn a_time_is_run_once_whenever_one_looks(
            minutes in 1_u8..60,
            steps in proptest::collection::vec(1_i64..5000, 1..60),
        ) {
            let schedule = Schedule::parse(&format!("*/{minutes} * * * *"), "Europe/London").expect("a schedule");
            // The night in which an hour comes twice.
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
