//! Python literals, the syntax of arguments and results in the shell.
//!
//! JSON (`true`, `null`, `NaN`, `"\/"`) is accepted too: no JSON text has another meaning in
//! Python.

mod reader;

use std::fmt::{self, Write as _};

use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

pub(super) use self::reader::value;
use super::scanner::{Fault, Scanner};
use crate::serialization::python_float;

/// A parsed literal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    /// Decimal digits with an optional `-`: integers are unbounded.
    Int(String),
    Float(f64),
    Text(String),
    List(Vec<Literal>),
    Tuple(Vec<Literal>),
    /// Entries in source order; keys are strings, numbers, booleans or `None`.
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Parses a text that consists of one literal.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut scanner = Scanner::new(text);
        let value = reader::value(&mut scanner)?;
        scanner.end()?;
        Ok(value)
    }

    /// Returns the key of a mapping as Python's `json.dumps` writes it.
    pub(super) fn as_json_key(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::None => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Float(value) if value.is_nan() => "NaN".into(),
            Self::Float(value) if value.is_infinite() => if *value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            }
            .into(),
            other => other.to_string(),
        }
    }
}

/// Serializes like Python's `json.dumps`: tuples as lists, keys as strings.
impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            // Larger integers are raw JSON text, where integers are unbounded.
            Self::Int(digits) => match (digits.parse::<i64>(), digits.parse::<u64>()) {
                (Ok(int), _) => serializer.serialize_i64(int),
                (_, Ok(int)) => serializer.serialize_u64(int),
                _ => RawValue::from_string(digits.clone())
                    .map_err(S::Error::custom)?
                    .serialize(serializer),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) | Self::Tuple(items) => serializer.collect_seq(items),
            Self::Dict(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(&key.as_json_key(), value)?;
                }
                map.end()
            }
        }
    }
}

/// Formats like Python's `repr`.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(digits) => f.write_str(digits),
            Self::Float(value) if value.is_nan() => f.write_str("nan"),
            Self::Float(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "inf" } else { "-inf" })
            }
            Self::Float(value) => f.write_str(&python_float(*value)),
            Self::Text(text) => write_text(f, text),
            Self::List(items) => write_items(f, '[', items, "]"),
            Self::Tuple(items) => {
                write_items(f, '(', items, if items.len() == 1 { ",)" } else { ")" })
            }
            Self::Dict(entries) => {
                f.write_char('{')?;
                for (position, (key, value)) in entries.iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_items(
    f: &mut fmt::Formatter<'_>,
    open: char,
    items: &[Literal],
    close: &str,
) -> fmt::Result {
    f.write_char(open)?;
    for (position, item) in items.iter().enumerate() {
        let comma = if position > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    f.write_str(close)
}

/// Writes a string in single quotes, or in double quotes if it only contains single ones. Escapes
/// non-printable characters.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if is_printable(c) => f.write_char(c)?,
            c => match u32::from(c) {
                code @ ..=0xff => write!(f, "\\x{code:02x}")?,
                code @ ..=0xffff => write!(f, "\\u{code:04x}")?,
                code => write!(f, "\\U{code:08x}")?,
            },
        }
    }
    f.write_char(quote)
}

/// Returns `true` if Python's `repr` does not escape the character: not a control, format, private
/// or unassigned character, and no space other than U+0020.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        // `escape_debug` is the only access to these categories in the standard library. The
        // leading `a` keeps it from escaping a combining mark.
        c => !format!("a{c}").escape_debug().any(|c| c == '\\'),
    }
}
