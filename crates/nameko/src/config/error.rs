//! Errors in configurations, with the position in the text.

use std::{fmt, io, path::PathBuf, sync::Arc};

use serde_json::Value;

/// A position in a configuration text. Displayed as `config.yaml:3:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Name of the text: the path of the file.
    pub origin: Arc<str>,
    /// Line, starting at 1.
    pub line: usize,
    /// Column in characters, starting at 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin, self.line, self.column)
    }
}

/// A configuration error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file does not exist, is not readable, or is not UTF-8.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The text is not YAML, or not valid for a configuration.
    #[error("{at}: {message}")]
    Yaml {
        /// Position of the error.
        at: Place,
        /// Description of the error.
        message: String,
    },
    /// The value of a key is invalid.
    #[error("{at}{key} {message}")]
    Invalid {
        /// Name of the key.
        key: String,
        /// Position of the value, if it came from a text.
        at: MaybePlace,
        /// Description of the error; continues a sentence that begins with the key.
        message: String,
    },
    /// The configuration as a whole does not match a type.
    #[error("the configuration is wrong: {message}")]
    Whole {
        /// Description of the error.
        message: String,
    },
    /// A `-d` argument is not `KEY=VALUE`.
    #[error("`{definition}` does not define anything; write KEY=VALUE")]
    Definition {
        /// Value of the argument.
        definition: String,
    },
}

/// The optional [`Place`] of a value; absent for values set in code. Displayed as `PLACE: `, or
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaybePlace(pub Option<Place>);

impl From<Option<Place>> for MaybePlace {
    fn from(place: Option<Place>) -> Self {
        Self(place)
    }
}

impl fmt::Display for MaybePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(place) => write!(f, "{place}: "),
            None => Ok(()),
        }
    }
}

/// Describes a value for error messages.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}
