//! Parsing of cron expressions and time zones.
//!
//! `nameko-macros` includes this file through a link, so that literals are checked at compile time
//! by the rules that apply at run time. A macro crate cannot export functions.

use croner::{
    Cron,
    parser::{CronParser, Year},
};
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

/// Parses an expression of five fields, or six with seconds first.
///
/// # Errors
/// If the expression is invalid or never matches a date, a message for users.
pub(crate) fn parse(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().year(Year::Disallowed).build();
    let cron = parser.parse(expression).map_err(|_| {
        let reason = reason(&parser, expression);
        format!("invalid cron expression `{expression}`: {reason}")
    })?;
    let start = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match cron.find_next_occurrence(&start, false) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!(
            "the cron expression `{expression}` never matches a date"
        )),
    }
}

/// Looks up a time zone by its IANA name.
///
/// # Errors
/// If the name is unknown, a message for users.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone, String> {
    // The system's database is more recent than the bundled one.
    TimeZone::get(name)
        .or_else(|_| TimeZoneDatabase::bundled().get(name))
        .map_err(|_| {
            format!("unknown time zone `{name}`: use an IANA name such as `Europe/London`")
        })
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
