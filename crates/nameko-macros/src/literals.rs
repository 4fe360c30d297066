//! Literals whose meaning the compiler can check already. What is not a literal is checked when the container is made.

use croner::parser::{CronParser, Year};
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};
use syn::Lit;

use crate::errors::Errors;

/// Checks the literal arguments of the marker `name`.
pub(crate) fn check(name: &str, literals: &[(String, Lit)], errors: &mut Errors) {
    for (argument, literal) in literals {
        let wrong = match (name, argument.as_str(), literal) {
            ("cron", "expression", Lit::Str(line)) => cron_error(&line.value()),
            ("cron", "tz", Lit::Str(zone)) => time_zone_error(&zone.value()),
            ("cron", "once", Lit::Str(scope)) => {
                (scope.value() != "fleet").then(|| "write `once = \"fleet\"`".to_owned())
            }
            ("timer", "interval", Lit::Int(seconds)) => interval_error(seconds.base10_parse().ok()),
            ("timer", "interval", Lit::Float(seconds)) => {
                interval_error(seconds.base10_parse().ok())
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            errors.add(literal, wrong);
        }
    }
}

fn cron_error(line: &str) -> Option<String> {
    let parser = CronParser::builder().year(Year::Disallowed).build();
    match parser.parse(line) {
        Err(_) => Some(format!(
            "this cron line does not parse: {}",
            reason(&parser, line)
        )),
        Ok(line) => {
            let from = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
            let never = line.find_next_occurrence(&from, false).is_err();
            never.then(|| "this cron line names a day that never comes".to_owned())
        }
    }
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

fn time_zone_error(zone: &str) -> Option<String> {
    let found = TimeZone::get(zone).or_else(|_| TimeZoneDatabase::bundled().get(zone));
    found
        .is_err()
        .then(|| "there is no such time zone: give an IANA name such as `Europe/London`".to_owned())
}

fn interval_error(seconds: Option<f64>) -> Option<String> {
    seconds
        .is_some_and(|seconds| seconds <= 0.0)
        .then(|| "an interval is more than 0 seconds".to_owned())
}
