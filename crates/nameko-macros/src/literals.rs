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
            ("cron", "expression", Lit::Str(line)) => wrong_line(&line.value()),
            ("cron", "tz", Lit::Str(zone)) => wrong_zone(&zone.value()),
            ("cron", "once", Lit::Str(scope)) => {
                (scope.value() != "fleet").then(|| "write `once = \"fleet\"`".to_owned())
            }
            ("timer", "interval", Lit::Int(seconds)) => wrong_interval(seconds.base10_parse().ok()),
            ("timer", "interval", Lit::Float(seconds)) => {
                wrong_interval(seconds.base10_parse().ok())
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            errors.add(literal, wrong);
        }
    }
}

fn wrong_line(line: &str) -> Option<String> {
    match CronParser::builder()
        .year(Year::Disallowed)
        .build()
        .parse(line)
    {
        Err(error) => Some(format!("this cron line does not parse: {error}")),
        Ok(line) => {
            let from = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
            let never = line.find_next_occurrence(&from, false).is_err();
            never.then(|| "this cron line names a day that never comes".to_owned())
        }
    }
}

fn wrong_zone(zone: &str) -> Option<String> {
    let found = TimeZone::get(zone).or_else(|_| TimeZoneDatabase::bundled().get(zone));
    found
        .is_err()
        .then(|| "there is no such time zone: give an IANA name such as `Europe/London`".to_owned())
}

fn wrong_interval(seconds: Option<f64>) -> Option<String> {
    seconds
        .is_some_and(|it| it <= 0.0)
        .then(|| "an interval is more than 0 seconds".to_owned())
}
