//! `NaN`, `Infinity` and `-Infinity`, which Python's JSON adds to the standard.
//!
//! Each has a stand-in: a reserved double near the largest one, spelled with a redundant zero in
//! the exponent. A text with both such a token and a stand-in's double is rejected, so that the
//! conversion is never ambiguous.

use std::borrow::Cow;

use crate::serialization::Error;

/// Prefix of every stand-in.
const PREFIX: &str = "1.79769313486230";
/// Suffix of every stand-in. Neither Python nor serde_json writes the zero.
const SUFFIX: &str = "e+0308";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Special {
    NaN,
    Infinity,
    NegativeInfinity,
}

impl Special {
    const ALL: [Self; 3] = [Self::NaN, Self::Infinity, Self::NegativeInfinity];

    /// Returns the special number for a non-finite float.
    pub(super) fn of(value: f64) -> Option<Self> {
        match value {
            _ if value.is_nan() => Some(Self::NaN),
            f64::INFINITY => Some(Self::Infinity),
            f64::NEG_INFINITY => Some(Self::NegativeInfinity),
            _ => None,
        }
    }

    /// Returns the special number for a stand-in.
    pub(super) fn of_stand_in(value: f64) -> Option<Self> {
        if value.abs() < 1.797_693_134_862_30e308 {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|special| special.stand_in() == value)
    }

    /// Returns Python's token.
    pub(super) const fn token(self) -> &'static str {
        match self {
            Self::NaN => "NaN",
            Self::Infinity => "Infinity",
            Self::NegativeInfinity => "-Infinity",
        }
    }

    pub(super) const fn value(self) -> f64 {
        match self {
            Self::NaN => f64::NAN,
            Self::Infinity => f64::INFINITY,
            Self::NegativeInfinity => f64::NEG_INFINITY,
        }
    }

    pub(super) const fn stand_in(self) -> f64 {
        match self {
            Self::NaN => 1.797_693_134_862_303e308,
            Self::Infinity => 1.797_693_134_862_307e308,
            Self::NegativeInfinity => -1.797_693_134_862_307e308,
        }
    }

    pub(super) const fn stand_in_text(self) -> &'static str {
        match self {
            Self::NaN => "1.797693134862303e+0308",
            Self::Infinity => "1.797693134862307e+0308",
            Self::NegativeInfinity => "-1.797693134862307e+0308",
        }
    }
}

/// Returns `true` if a standard text may hold a stand-in.
pub(super) fn occurs_in(text: &str) -> bool {
    text.contains(SUFFIX) && text.contains(PREFIX)
}

/// Converts Python's JSON to standard JSON.
///
/// The tokens `NaN`, `Infinity` and `-Infinity` become reserved numbers that
/// [`from_slice`](super::from_slice) converts back. Any other text is returned unchanged, valid or
/// not.
///
/// # Errors
/// If the text holds both such a token and a reserved number.
pub fn standard(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len() + 64);
    let mut replaced = false;
    let mut clash = false;
    for piece in pieces(text) {
        match Special::ALL
            .into_iter()
            .find(|special| special.token() == piece)
        {
            Some(special) => {
                replaced = true;
                out.push_str(special.stand_in_text());
            }
            None => {
                clash |= piece.len() > 15
                    && piece
                        .parse()
                        .is_ok_and(|number| Special::of_stand_in(number).is_some());
                out.push_str(piece);
            }
        }
    }
    match (replaced, clash) {
        (false, _) => Ok(Cow::Borrowed(text)),
        (true, false) => Ok(Cow::Owned(out)),
        (true, true) => Err(Error::json_read(
            "it holds NaN or Infinity, and a number too close to the largest one beside it",
        )),
    }
}

/// Converts standard JSON to Python's: the inverse of [`standard`].
pub fn python(text: &str) -> Cow<'_, str> {
    if !occurs_in(text) {
        return Cow::Borrowed(text);
    }
    let stand_in = |piece: &str| {
        Special::ALL
            .into_iter()
            .find(|special| special.stand_in_text() == piece)
    };
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        out.push_str(stand_in(piece).map_or(piece, |special| special.token()));
    }
    Cow::Owned(out)
}

/// Returns the first integer of a text that fits neither `i64` nor `u64`.
pub(super) fn huge_integer(text: &str) -> Option<&str> {
    pieces(text).find(|piece| {
        let digits = piece.strip_prefix('-').unwrap_or(piece);
        digits.len() >= 19
            && digits.bytes().all(|b| b.is_ascii_digit())
            && piece.parse::<i64>().is_err()
            && piece.parse::<u64>().is_err()
    })
}

/// Returns `true` if a text may hold an integer that fits neither `i64` nor `u64`: if it has 19
/// digits in a row. Looks at every 19th byte.
pub(super) fn may_hold_huge_integer(text: &str) -> bool {
    const DIGITS: usize = 19;
    let bytes = text.as_bytes();
    let digits = |bytes: &mut dyn Iterator<Item = &u8>| {
        bytes.take_while(|byte| byte.is_ascii_digit()).count()
    };
    (DIGITS - 1..bytes.len())
        .step_by(DIGITS)
        .filter(|&at| bytes[at].is_ascii_digit())
        .any(|at| {
            let (before, from) = bytes.split_at(at);
            digits(&mut before.iter().rev()) + digits(&mut from.iter()) >= DIGITS
        })
}

/// Splits a text into strings (with quotes), words and numbers, and the separators between them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = match rest.bytes().next()? {
            b'"' => string_length(rest),
            first if is_word(first) => rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len()),
            _ => rest
                .bytes()
                .position(|b| b == b'"' || is_word(b))
                .unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

/// Returns the length of the string literal at the start of the text, or of the whole text if it is
/// unterminated.
pub(super) fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_parse_to_their_values() {
        for special in Special::ALL {
            let text = special.stand_in_text();
            assert_eq!(
                serde_json::from_str::<f64>(text).expect(text),
                special.stand_in()
            );
            assert_eq!(Special::of_stand_in(special.stand_in()), Some(special));
            assert_eq!(Special::of(special.value()), Some(special));
            assert!(occurs_in(text));
        }
        assert_eq!(Special::of_stand_in(f64::MAX), None);
        assert_eq!(Special::of_stand_in(f64::MIN), None);
    }

    #[test]
    fn a_huge_integer_is_found_at_each_position() {
        for digits in 17..25 {
            for before in 0..45 {
                for after in 0..25 {
                    let text = format!(
                        "{}{}{}",
                        "x".repeat(before),
                        "7".repeat(digits),
                        ",".repeat(after)
                    );
                    assert_eq!(may_hold_huge_integer(&text), digits >= 19, "{text}");
                }
            }
        }
    }

    #[test]
    fn tokens_within_strings_are_text() {
        for text in [
            r#"{"NaN": "x Infinity \" NaN"}"#,
            r#""NaN"#,
            "NaNa",
            "xNaN",
            "- Infinity2",
            r#"["\\", "NaN"]"#,
        ] {
            assert_eq!(standard(text).expect(text), text);
        }
        let text = r#"{"NaN": [NaN,-Infinity , "\\", Infinity, "NaN"]}"#;
        let inner = standard(text).expect(text);
        assert!(
            serde_json::from_str::<serde_json::Value>(&inner).is_ok(),
            "{inner}"
        );
        assert_eq!(python(&inner), text);
    }

    #[test]
    fn an_ambiguous_number_is_rejected() {
        assert!(standard("[NaN, 1.797693134862303e308]").is_err());
        assert!(standard("[NaN, 1.797693134862304e308]").is_ok());
        assert_eq!(
            standard("[\"NaN\", 1.797693134862303e308]").expect("no token"),
            "[\"NaN\", 1.797693134862303e308]"
        );
    }
}
