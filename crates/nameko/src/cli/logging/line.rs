//! A log line in the text or JSON format.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use serde::{Serialize, Serializer, ser::SerializeMap};
use tracing::Level;

use super::fields::{Fields, Value};

const MESSAGE: &str = "message";
/// Prefix of the fields that hold the origin of an event from the crate `log`; not shown, since its
/// target is.
const BRIDGED: &str = "log.";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The content of a line.
pub(super) struct Line<'a> {
    pub(super) time: String,
    pub(super) level: Level,
    pub(super) target: &'a str,
    /// Number of the process under a supervisor.
    pub(super) process: Option<u16>,
    /// Fields of the event, including the message.
    pub(super) fields: &'a Fields,
    /// Spans around the event, outermost first.
    pub(super) spans: Vec<Span<'a>>,
}

/// A span around an event.
pub(super) struct Span<'a> {
    pub(super) name: &'static str,
    pub(super) fields: Cow<'a, Fields>,
}

impl Line<'_> {
    /// Formats the line as text: the message first, then its context. A worker is identified by its
    /// call id, which starts with the names of the service and the method.
    pub(super) fn text(&self, colours: bool) -> String {
        let mut line = String::new();
        // Writing to a `String` cannot fail.
        let _ = self.write_text(&mut line, colours);
        line
    }

    fn write_text(&self, line: &mut String, colours: bool) -> fmt::Result {
        let (dim, level, plain) = match colours {
            true => (DIM, colour(self.level), PLAIN),
            false => ("", "", ""),
        };
        if let Some(process) = self.process {
            write!(line, "[{process}] ")?;
        }
        write!(line, "{dim}{}{plain} ", self.time)?;
        write!(line, "{level}{:>5}{plain} ", self.level.as_str())?;
        write!(line, "{dim}{}:{plain}", self.target)?;
        if let Some(message) = self.fields.get(MESSAGE).and_then(Value::as_str) {
            write!(line, " {}", Clean(message))?;
        }
        for (name, value) in self.own_fields() {
            write!(line, " {dim}{name}={plain}{value}")?;
        }
        for (number, span) in self.spans.iter().enumerate() {
            let before = if number == 0 { " [" } else { " " };
            write!(line, "{dim}{before}{span}{plain}")?;
        }
        if !self.spans.is_empty() {
            write!(line, "{dim}]{plain}")?;
        }
        writeln!(line)
    }

    /// Formats the line as a JSON object. `span` is the innermost span, `spans` are the outer ones.
    pub(super) fn json(&self) -> String {
        // Cannot fail: keys are strings, and numbers that JSON lacks become null.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Returns the fields of the event without the message.
    fn own_fields(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let fields = self.fields.iter();
        fields.filter(|(name, _)| *name != MESSAGE && !name.starts_with(BRIDGED))
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const OWN: &[&str] = &["process", "timestamp", "level", "target", "span", "spans"];
        let mut line = serializer.serialize_map(None)?;
        if let Some(process) = self.process {
            line.serialize_entry("process", &process)?;
        }
        line.serialize_entry("timestamp", &self.time)?;
        line.serialize_entry("level", self.level.as_str())?;
        if let Some(message) = self.fields.get(MESSAGE) {
            line.serialize_entry(MESSAGE, message)?;
        }
        serialize_fields(&mut line, self.own_fields(), OWN)?;
        line.serialize_entry("target", self.target)?;
        if let Some((innermost, around)) = self.spans.split_last() {
            line.serialize_entry("span", innermost)?;
            if !around.is_empty() {
                line.serialize_entry("spans", around)?;
            }
        }
        line.end()
    }
}

impl Serialize for Span<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut span = serializer.serialize_map(None)?;
        span.serialize_entry("name", self.name)?;
        serialize_fields(&mut span, self.fields.iter(), &["name"])?;
        span.end()
    }
}

/// Serializes fields. A field with the name of one of the log's `own` keys gets the suffix `_`, so
/// that keys are unique.
fn serialize_fields<'a, M: SerializeMap>(
    map: &mut M,
    fields: impl Iterator<Item = (&'static str, &'a Value)>,
    own: &[&str],
) -> Result<(), M::Error> {
    for (name, value) in fields {
        if own.contains(&name) {
            map.serialize_entry(&format!("{name}_"), value)?;
        } else {
            map.serialize_entry(name, value)?;
        }
    }
    Ok(())
}

impl fmt::Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(call_id) = self.fields.get("call_id").and_then(Value::as_str) {
            return write!(f, "{}", Clean(call_id));
        }
        f.write_str(self.name)?;
        let mut before = "{";
        for (name, value) in self.fields.iter() {
            write!(f, "{before}{name}={value}")?;
            before = " ";
        }
        f.write_str(if before == "{" { "" } else { "}" })
    }
}

/// Formats a value for the text format.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Shown(text) => write!(f, "{}", Clean(text)),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
        }
    }
}

/// Escapes control characters except line ends: text from a peer must not control the terminal.
struct Clean<'a>(&'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unclean = |it: char| it.is_control() && it != '\n' && it != '\t';
        for part in self.0.split_inclusive(unclean) {
            match part.char_indices().next_back().filter(|(_, c)| unclean(*c)) {
                Some((end, control)) => {
                    let (before, _) = part.split_at(end);
                    write!(f, "{before}{}", control.escape_default())?;
                }
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}
