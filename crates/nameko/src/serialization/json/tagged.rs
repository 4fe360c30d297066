//! Tagged values, written by kombu since 5.3 for types that JSON lacks:
//! `{"__type__": "uuid", "__value__": {"hex": ".."}}`.
//!
//! They are converted to the plain form of kombu 5.2, which serde reads too: dates, decimals and
//! UUIDs as text, bytes as a list of numbers. Source: `kombu/utils/json.py`.

use std::borrow::Cow;

use uuid::Uuid;

/// Prefix of a tagged value. Cannot occur inside a string, where quotes are escaped.
const START: &str = r#"{"__type__": ""#;

/// Replaces tagged values by plain JSON. Unknown types are left unchanged.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tagged)) = rest.split_once(START) {
        out.push_str(before);
        rest = match value(tagged) {
            Some((value, after)) => {
                out.push_str(&value);
                after
            }
            None => {
                out.push_str(START);
                tagged
            }
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Parses the tagged value after its prefix; returns its plain JSON and the rest of the text.
fn value(tagged: &str) -> Option<(String, &str)> {
    let (kind, rest) = tagged.split_once('"')?;
    let rest = rest.strip_prefix(r#", "__value__": "#)?;
    let rest = match kind {
        "uuid" => rest.strip_prefix(r#"{"hex": "#)?,
        "datetime" | "date" | "time" | "decimal" | "bytes" | "base64" => rest,
        _ => return None,
    };
    if !rest.starts_with('"') {
        return None;
    }
    let (quoted, after) = rest.split_at_checked(super::non_finite::string_length(rest))?;
    let after = after.strip_prefix(if kind == "uuid" { "}}" } else { "}" })?;
    let text = || serde_json::from_str::<String>(quoted).ok();
    let value = match kind {
        "uuid" => format!("\"{}\"", Uuid::try_parse(&text()?).ok()?),
        "bytes" => format!("{:?}", text()?.as_bytes()),
        "base64" => format!("{:?}", from_base64(&text()?)?),
        _ => quoted.to_owned(),
    };
    Some((value, after))
}

/// Decodes base64 (RFC 4648, section 4).
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let digit = match group.get(at) {
                Some(b @ b'A'..=b'Z') => b - b'A',
                Some(b @ b'a'..=b'z') => b - b'a' + 26,
                Some(b @ b'0'..=b'9') => b - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        bytes.extend(decoded.into_iter().take(group.len() * 3 / 4));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs are output of `kombu.utils.json.dumps`, kombu 5.7.
    #[test]
    fn tagged_values_of_kombu_become_plain_values() {
        for (kombu, expected) in [
            (
                r#"[{"__type__": "datetime", "__value__": "2020-01-02T03:04:05"}, 1]"#,
                r#"["2020-01-02T03:04:05", 1]"#,
            ),
            (
                r#"{"a": {"__type__": "decimal", "__value__": "1.50"}}"#,
                r#"{"a": "1.50"}"#,
            ),
            (
                r#"{"__type__": "uuid", "__value__": {"hex": "00000000000040008000000000000007"}}"#,
                r#""00000000-0000-4000-8000-000000000007""#,
            ),
            (
                r#"{"__type__": "bytes", "__value__": "a\u00e9\""}"#,
                "[97, 195, 169, 34]",
            ),
            (
                r#"[{"__type__": "base64", "__value__": "/w=="}, {"__type__": "base64", "__value__": "/wD+"}]"#,
                "[[255], [255, 0, 254]]",
            ),
            (r#"{"__type__": "base64", "__value__": ""}"#, "[]"),
        ] {
            assert_eq!(plain(kombu), expected);
        }
    }

    #[test]
    fn malformed_and_unknown_tags_are_left_unchanged() {
        for text in [
            r#"{"__type__": "mine", "__value__": 1}"#,
            r#"{"__type__": "date", "__value__": 1}"#,
            r#"{"__type__": "date", "__value__": "x", "more": 1}"#,
            r#"{"__type__": "uuid", "__value__": {"hex": "x"}}"#,
            r#"{"__type__": "base64", "__value__": "*"}"#,
            r#"{"__type__": "date", "__value__": "x"#,
            r#"{"__type__": ""#,
            r#""{\"__type__\": \"date\", \"__value__\": \"x\"}""#,
        ] {
            assert_eq!(plain(text), text);
        }
    }
}
