//! Serialization errors.

use std::fmt;

/// A serialization or deserialization error.
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
    /// Creates an error for a body that cannot be deserialized, for the reason `detail`.
    pub fn read(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Read, format!("the message can't be read: {detail}"))
    }

    /// Creates an error for a value that cannot be serialized, for the reason `detail`.
    pub fn write(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Write, format!("the value can't be written: {detail}"))
    }

    /// Returns `true` if serializing a local value failed.
    pub fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }

    /// Returns `true` if a peer's message cannot be read at all: its body does not match its
    /// properties, or its format is not accepted.
    ///
    /// A well-formed value of an unexpected type is not unreadable.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::ContentType)
    }

    /// Creates an error for a content type that is not in the list `accepted`.
    pub(super) fn content_type(content_type: &str, accepted: impl fmt::Display) -> Self {
        Self::new(
            Kind::ContentType,
            format!("a message of content type `{content_type}` is not accepted: send {accepted}"),
        )
    }

    /// Creates an error for a well-formed value of an unexpected type.
    pub(super) fn mismatch(detail: impl fmt::Display) -> Self {
        Self::new(Kind::Mismatch, detail.to_string())
    }

    /// Prefixes the message with the place where the error occurred.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    #[cfg(feature = "msgpack")]
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
        let problem = if detail.contains("hex escape") {
            "the JSON holds a lone surrogate (like \\ud800), which is not valid text"
        } else {
            "the JSON can't be read"
        };
        Self::new(Kind::Read, format!("{problem}: {detail}"))
    }

    pub(super) fn json_write(detail: impl fmt::Display) -> Self {
        Self::write_as("JSON", detail)
    }

    /// Converts an error of serde_json.
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
