//! Why a value could not be written, or a message not be read.

use std::fmt;

/// A value could not be turned into the body of a message, or the body of a message not into a value.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Mismatch,
    Write,
    ContentType,
}

impl Error {
    /// A body could not be read; `detail` says why.
    pub fn read(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Read, format!("the message can't be read: {detail}"))
    }

    /// A value could not be written; `detail` says why.
    pub fn write(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Write, format!("the value can't be written: {detail}"))
    }

    /// Whether it was a value of ours that has no form in the format, not a message of a peer's.
    pub fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }

    /// Whether a peer's message can't be read at all: what is in it is not what its properties say, or they name a format
    /// that is not accepted here. Not so where it could be read, and holds a value of another type than expected.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::ContentType)
    }

    /// A message is of a content type that is not accepted here; `accepted` lists those that are.
    pub(super) fn content_type(content_type: &str, accepted: impl fmt::Display) -> Self {
        Self::new(
            Kind::ContentType,
            format!("a message of content type `{content_type}` is not accepted: send {accepted}"),
        )
    }

    /// A value is there, but not of the type that was expected.
    pub(super) fn mismatch(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Mismatch, detail.to_string())
    }

    /// The same, with the place where it happened before it.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(super) fn read_as(format: &str, detail: impl fmt::Display) -> Self {
        Self::new(Kind::Read, format!("the {format} can't be read: {detail}"))
    }

    pub(super) fn write_as(format: &str, detail: impl fmt::Display) -> Self {
        Self::new(
            Kind::Write,
            format!("the value can't be written as {format}: {detail}"),
        )
    }

    pub(crate) fn json_read(detail: impl fmt::Display) -> Self {
        let detail = detail.to_string();
        let what = if detail.contains("hex escape") {
            "the JSON holds half of a surrogate pair (like \\ud800), which is no text"
        } else {
            "the JSON can't be read"
        };
        Self::new(Kind::Read, format!("{what}: {detail}"))
    }

    pub(super) fn json_write(detail: impl fmt::Display) -> Self {
        Self::write_as("JSON", detail)
    }

    /// What serde_json says about a text.
    pub(super) fn of_json(error: serde_json::Error) -> Self {
        if !error.is_data() {
            return Self::json_read(error);
        }
        // "invalid type: integer `1`, expected a string"
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        Self::mismatch(text.strip_suffix(&place).unwrap_or(&text))
    }

    fn new(kind: Kind, message: String) -> Self {
        Self { kind, message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
