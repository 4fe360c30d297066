//! Validation of literals at compile time. Other expressions are validated when the container is
//! created.

use syn::Lit;

#[cfg(feature = "cron")]
use crate::cron_expression;
use crate::errors::Errors;

/// Checks the literal arguments of a marker.
pub(crate) fn check(name: &str, literals: &[(String, Lit)], errors: &mut Errors) {
    for (argument, literal) in literals {
        let wrong = match (name, argument.as_str(), literal) {
            #[cfg(feature = "cron")]
            ("cron", "expression", Lit::Str(line)) => cron_expression::parse(&line.value()).err(),
            #[cfg(feature = "cron")]
            ("cron", "tz", Lit::Str(zone)) => cron_expression::time_zone(&zone.value()).err(),
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
