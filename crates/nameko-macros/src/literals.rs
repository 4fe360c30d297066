//! Validation of literals at compile time. Other expressions are validated when the container is
//! created.

use syn::Lit;

use crate::errors::Errors;

/// Checks the literal arguments of a marker.
pub(crate) fn check(name: &str, literals: &[(String, Lit)], errors: &mut Errors) {
    for (argument, literal) in literals {
        let wrong = match (name, argument.as_str(), literal) {
            #[cfg(feature = "cron")]
            ("cron", "expression", Lit::Str(line)) => cron::expression_error(&line.value()),
            #[cfg(feature = "cron")]
            ("cron", "tz", Lit::Str(zone)) => cron::time_zone_error(&zone.value()),
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

fn interval_error(seconds: Option<f64>) -> Option<String> {
    seconds
        .is_some_and(|seconds| seconds <= 0.0)
        .then(|| "the interval must be greater than 0 seconds".to_owned())
}

#[cfg(feature = "cron")]
mod cron {
    use croner::parser::{CronParser, Year};
    use jiff::{
        Timestamp,
        tz::{TimeZone, TimeZoneDatabase},
    };

    pub(super) fn expression_error(line: &str) -> Option<String> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        match parser.parse(line) {
            Err(_) => Some(format!(
                "invalid cron expression: {}",
                reason(&parser, line)
            )),
            Ok(line) => {
                let from = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
                let never = line.find_next_occurrence(&from, false).is_err();
                never.then(|| "this cron expression never matches a date".to_owned())
            }
        }
    }

    /// Names of the fields of a cron expression, seconds first.
    const FIELDS: [&str; 6] = [
        "second",
        "minute",
        "hour",
        "day of month",
        "month",
        "day of week",
    ];

    /// Returns why an expression is invalid: the first invalid field, or the number of fields.
    fn reason(parser: &CronParser, line: &str) -> String {
        let fields: Vec<_> = line.split_whitespace().collect();
        let names = match fields.len() {
            1 if line.starts_with('@') => return "unknown shorthand".to_owned(),
            5 => &FIELDS[1..],
            6 => &FIELDS[..],
            count => {
                let found = match count {
                    1 => "1 field".to_owned(),
                    _ => format!("{count} fields"),
                };
                return format!(
                    "expected five fields (minute, hour, day of month, month, day of week) or six with seconds first, found {found}"
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
            Some((_, (field, name))) => format!("`{field}` is not a valid {name}"),
            None => "its fields cannot be combined".to_owned(),
        }
    }

    pub(super) fn time_zone_error(zone: &str) -> Option<String> {
        let found = TimeZone::get(zone).or_else(|_| TimeZoneDatabase::bundled().get(zone));
        found
            .is_err()
            .then(|| "unknown time zone: use an IANA name such as `Europe/London`".to_owned())
    }
}
