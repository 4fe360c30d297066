//! Resolution of plain YAML scalars by the rules of PyYAML's safe loader (YAML 1.1), so that a file
//! has the same meaning for Rust and Python services: `yes` is true, `010` is 8, `1:30` is 90,
//! `1e3` is text.

use serde_json::{Number, Value};

/// The type of a scalar in YAML.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Text,
}

/// Resolves a plain scalar. Numbers that JSON cannot hold, because they need more than 64 bits or
/// are not finite, keep their text.
pub(super) fn resolve(text: &str) -> (Kind, Value) {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Kind::Null, Value::Null),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return (Kind::Bool, Value::Bool(true));
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return (Kind::Bool, Value::Bool(false));
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return (Kind::Text, Value::from(text));
    }
    let number = |number: Option<Number>| number.map_or_else(|| Value::from(text), Value::Number);
    if let Some(integer) = integer(text) {
        return (Kind::Int, number(integer));
    }
    match float(text) {
        Some(float) => (Kind::Float, number(Number::from_f64(float))),
        None => (Kind::Text, Value::from(text)),
    }
}

/// Parses an integer; `None` if the text is not one. Inner `None`: more than 64 bits.
fn integer(text: &str) -> Option<Option<Number>> {
    let (negative, digits) = sign(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        in_base(binary, 2)?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        in_base(hex, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        in_base(digits, 8)?
    } else if digits.contains(':') {
        let mut parts = digits.split(':');
        let first = parts.next()?;
        if first.starts_with('0') {
            return None;
        }
        let mut total = in_base(first, 10)?;
        for part in parts {
            let part = u128::from(sixty(part)?);
            total = total.and_then(|total| total.checked_mul(60)?.checked_add(part));
        }
        total
    } else {
        in_base(digits, 10)?
    };
    Some(magnitude.and_then(|magnitude| to_number(negative, magnitude)))
}

/// Parses digits of a base. Outer `None`: not digits of that base. Inner `None`: more than 128
/// bits.
fn in_base(digits: &str, base: u32) -> Option<Option<u128>> {
    if !digits.chars().all(|c| c == '_' || c.is_digit(base)) {
        return None;
    }
    let bare = digits.replace('_', "");
    if bare.is_empty() || digits.starts_with('_') && base == 10 {
        return None;
    }
    Some(u128::from_str_radix(&bare, base).ok())
}

fn to_number(negative: bool, magnitude: u128) -> Option<Number> {
    if negative {
        let value = i128::try_from(magnitude).ok()?;
        i64::try_from(-value).ok().map(Number::from)
    } else {
        u64::try_from(magnitude).ok().map(Number::from)
    }
}

/// Parses a float; `None` if the text is not one. YAML 1.1 requires a dot, and a sign in the
/// exponent.
pub(super) fn float(text: &str) -> Option<f64> {
    let (negative, body) = sign(text);
    let value = match body {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        ".nan" | ".NaN" | ".NAN" if body == text => f64::NAN,
        _ => {
            let (whole, rest) = body.split_once('.')?;
            if whole.is_empty() && body.len() != text.len() {
                return None;
            }
            let (fraction, exponent) = match rest.split_once(['e', 'E']) {
                Some((fraction, exponent)) => (fraction, Some(exponent)),
                None => (rest, None),
            };
            let all_digits = |part: &str| part.chars().all(|c| c == '_' || c.is_ascii_digit());
            let signed = |e: &str| {
                e.strip_prefix(['+', '-'])
                    .is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_ascii_digit()))
            };
            if !all_digits(fraction) || !exponent.is_none_or(signed) {
                return None;
            }
            if whole.contains(':') {
                let mut parts = whole.split(':');
                let mut total = start_of_float(parts.next()?)?;
                for part in parts {
                    total = total * 60.0 + f64::from(sixty(part)?);
                }
                if exponent.is_some() {
                    return None;
                }
                total
                    + format!("0.{}", fraction.replace('_', ""))
                        .parse::<f64>()
                        .ok()?
            } else {
                if whole.is_empty() {
                    start_of_float(fraction)?;
                } else {
                    start_of_float(whole)?;
                }
                body.replace('_', "").parse().ok()?
            }
        }
    };
    Some(if negative { -value } else { value })
}

fn start_of_float(digits: &str) -> Option<f64> {
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c == '_' || c.is_ascii_digit());
    if plain {
        digits.replace('_', "").parse().ok()
    } else {
        None
    }
}

/// Parses a digit group of a base-60 number: one or two digits below 60.
fn sixty(part: &str) -> Option<u8> {
    let digits = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit());
    if digits {
        part.parse().ok().filter(|n| *n < 60)
    } else {
        None
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_pyyaml() {
        let table = [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("nUll", json!("nUll")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("True", json!(true)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("12", json!(12)),
            ("+12", json!(12)),
            ("-12", json!(-12)),
            ("1_000", json!(1000)),
            ("010", json!(8)),
            ("08", json!("08")),
            ("0x1F", json!(31)),
            ("-0x1f", json!(-31)),
            ("0b101", json!(5)),
            ("0o17", json!("0o17")),
            ("1:30", json!(90)),
            ("1:30:00", json!(5400)),
            ("1:60", json!("1:60")),
            ("01:30", json!("01:30")),
            ("18446744073709551615", json!(18446744073709551615u64)),
            ("-9223372036854775808", json!(-9223372036854775808i64)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-.5", json!("-.5")),
            ("-1.5", json!(-1.5)),
            ("1.5e+3", json!(1500.0)),
            ("1.5e3", json!("1.5e3")),
            ("1e3", json!("1e3")),
            ("1:30.5", json!(90.5)),
            ("1.2.3", json!("1.2.3")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("0.0.0.0:8000", json!("0.0.0.0:8000")),
            ("2020-01-02", json!("2020-01-02")),
            ("-", json!("-")),
            (".", json!(".")),
            ("+", json!("+")),
            ("_1", json!("_1")),
            (
                "amqp://guest:guest@localhost",
                json!("amqp://guest:guest@localhost"),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(resolve(text).1, expected, "{text}");
        }
    }

    #[test]
    fn numbers_out_of_range_keep_their_text() {
        for (text, kind) in [
            ("18446744073709551616", Kind::Int),
            ("-9223372036854775809", Kind::Int),
            (".inf", Kind::Float),
            ("-.INF", Kind::Float),
            (".nan", Kind::Float),
            ("0xffffffffffffffffffffffffffffffffffff", Kind::Int),
        ] {
            assert_eq!(resolve(text), (kind, Value::from(text)), "{text}");
        }
    }
}
