//! YAML output in the layout of PyYAML's `dump(default_flow_style=False)`: sorted keys, the dashes
//! of a list aligned with its key.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{environment, scalar};

/// Writes a mapping as YAML text that ends with a line break.
pub(super) fn mapping(entries: &Map<String, Value>) -> String {
    let mut out = String::new();
    if entries.is_empty() {
        out.push_str("{}\n");
    } else {
        write_mapping(&mut out, entries, 0, false);
    }
    out
}

/// Writes the entries of a mapping. With `inline`, the first entry continues an indented line
/// (`- key: value`).
fn write_mapping(out: &mut String, entries: &Map<String, Value>, indent: usize, inline: bool) {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    for (position, (key, value)) in sorted.into_iter().enumerate() {
        if position > 0 || !inline {
            pad(out, indent);
        }
        write_text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                write_mapping(out, inner, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                write_sequence(out, items, indent, false);
            }
            scalar => {
                out.push(' ');
                write_scalar(out, scalar);
            }
        }
    }
}

fn write_sequence(out: &mut String, items: &[Value], indent: usize, inline: bool) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 || !inline {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => {
                write_mapping(out, inner, indent + 2, true)
            }
            Value::Array(inner) if !inner.is_empty() => {
                write_sequence(out, inner, indent + 2, true)
            }
            scalar => write_scalar(out, scalar),
        }
    }
}

/// Writes a scalar or an empty collection, and a line break.
fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

fn write_number(out: &mut String, number: &serde_json::Number) {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let text = crate::serialization::python_float(float);
            // YAML 1.1 requires a dot in floats: `1e+16` is text.
            match text.split_once('e') {
                Some((digits, exponent)) if !digits.contains('.') => {
                    let _ = write!(out, "{digits}.0e{exponent}");
                }
                _ => out.push_str(&text),
            }
        }
        _ => {
            let _ = write!(out, "{number}");
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if text
        .chars()
        .all(|c| c == ' ' || (!c.is_control() && !c.is_whitespace() && c != '\u{feff}'))
    {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                ' ' => out.push(' '),
                c if c.is_control() || c.is_whitespace() || c == '\u{feff}' => {
                    let _ = write!(out, "\\U{:08X}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Returns `true` if the unquoted text reads back as the same text.
fn is_plain(text: &str) -> bool {
    let safe_start = text.starts_with(|c: char| {
        c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '$' | '+' | '(')
    });
    safe_start
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c.is_alphanumeric() || " _-./:@$+=~()#;<>*&!?%'\"^|".contains(c))
        && !environment::may_hold_reference(text)
        && !text.starts_with("...")
        && scalar::resolve(text).0 == scalar::Kind::Text
        // PyYAML reads these as dates.
        && !text.starts_with(|c: char| c.is_ascii_digit() && text.contains('-'))
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: Value) -> String {
        match value {
            Value::Object(entries) => mapping(&entries),
            other => panic!("not a mapping: {other}"),
        }
    }

    #[test]
    fn looks_like_pyyamls() {
        // Output of yaml.dump(..., default_flow_style=False).
        let table = [
            (json!({}), "{}\n"),
            (
                json!({"FOO": "foobar", "BAR": [1, 2, 3]}),
                "BAR:\n- 1\n- 2\n- 3\nFOO: foobar\n",
            ),
            (json!({"a": {"b": {"c": null}}}), "a:\n  b:\n    c: null\n"),
            (
                json!({"a": [{"x": 1, "y": [true]}, [1, [2]]]}),
                "a:\n- x: 1\n  y:\n  - true\n- - 1\n  - - 2\n",
            ),
            (json!({"a": [], "b": {}, "c": ""}), "a: []\nb: {}\nc: ''\n"),
            (
                json!({"AMQP_URI": "pyamqp://guest:guest@localhost"}),
                "AMQP_URI: pyamqp://guest:guest@localhost\n",
            ),
            (
                json!({"a": "1", "b": "true", "c": "it's", "d": "- x"}),
                "a: '1'\nb: 'true'\nc: it's\nd: '- x'\n",
            ),
            (
                json!({"a": 1.0, "b": 1e16, "c": 1.5e-7}),
                "a: 1.0\nb: 1.0e+16\nc: 1.5e-07\n",
            ),
            (
                json!({"a": "2020-01-02", "b": "${X}", "c": "a: b"}),
                "a: '2020-01-02'\nb: '${X}'\nc: 'a: b'\n",
            ),
            (json!({"a": "x\ny"}), "a: \"x\\ny\"\n"),
        ];
        for (value, expected) in table {
            assert_eq!(text(value.clone()), expected, "{value}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let odd = "[-a1:{}\\[\\]\"'&*!|>#%@`,?$~<.= \n\t\\\\é\u{85}\u{2028}]{0,12}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON holds finite numbers", |number| number.is_finite())
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            odd.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-z1:~<-]{0,4}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn output_reads_back_as_the_same_value(value in any_value()) {
            let entries = Map::from_iter([("key".to_owned(), value)]);
            let text = mapping(&entries);
            match crate::config::yaml::load(&text, "dump", &|_| None) {
                Ok(document) => prop_assert_eq!(document.entries, entries, "{}", text),
                Err(error) => prop_assert!(false, "{}\n{}", error, text),
            }
        }
    }
}
