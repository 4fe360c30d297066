//! Errors as they travel.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    error::{Error, Raise},
    exceptions,
    web::ErrorResponse,
};

/// The error object of a reply: what the method raised, as any peer reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The class name: `ValueError`.
    pub exc_type: String,
    /// The class with its module, dotted: `builtins.ValueError`.
    #[serde(default)]
    pub exc_path: String,
    /// What it was raised with. Leaves are text, as Nameko sends them.
    #[serde(default)]
    pub exc_args: Vec<Value>,
    /// The error as text.
    #[serde(default, deserialize_with = "text")]
    pub value: String,
    /// What an HTTP client gets, where the error says so. Stays in the process.
    #[serde(skip)]
    pub(crate) web: Option<Box<ErrorResponse>>,
}

/// Nameko sends an exception that can be iterated as a list, not as text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

impl Fault {
    /// An error of the class `exc_type`, of no module, raised with `value`.
    pub fn new(exc_type: impl Into<String>, value: impl Into<String>) -> Self {
        let exc_type = exc_type.into();
        Self {
            exc_path: exc_type.clone(),
            ..Self::with_path(exc_type, String::new(), value.into())
        }
    }

    /// The error object of any error a method can return.
    pub fn of(error: &impl Raise) -> Self {
        error.fault()
    }

    /// An error of the Rust type `path`: `my_crate::orders::NotFound` reads as `my_crate.orders.NotFound`.
    pub(crate) fn from_type(path: &str, value: String) -> Self {
        let plain = path.split('<').next().unwrap_or(path);
        let exc_type = plain.rsplit("::").next().unwrap_or(plain);
        Self::with_path(exc_type.to_owned(), plain.replace("::", "."), value)
    }

    /// One of Nameko's own exceptions.
    pub(crate) fn nameko(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("nameko.exceptions.{exc_type}"),
            value.into(),
        )
    }

    /// One of Python's built-in exceptions.
    pub(crate) fn python(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("builtins.{exc_type}"),
            value.into(),
        )
    }

    /// A result that could not be serialised. Its class takes no arguments on the wire, as upstream sends it.
    pub(crate) fn unserializable(what: &str) -> Self {
        Self {
            exc_args: Vec::new(),
            ..Self::nameko(
                "UnserializableValueError",
                format!("Unserializable value: `{what}`"),
            )
        }
    }

    /// A method that panicked.
    pub(crate) fn panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = match (
            payload.downcast_ref::<&str>(),
            payload.downcast_ref::<String>(),
        ) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "no message".to_owned(),
        };
        Self::new("Panic", text)
    }

    fn with_path(exc_type: String, exc_path: String, value: String) -> Self {
        Self {
            exc_type,
            exc_path,
            exc_args: vec![Value::String(value.clone())],
            value,
            web: None,
        }
    }

    /// The error that a caller sees: Nameko's own and registered classes as themselves, all others as a remote error.
    pub(crate) fn into_error(self) -> Error {
        let argument = || match self.exc_args.first() {
            Some(Value::String(text)) => text.clone(),
            _ => self.value.clone(),
        };
        match self.exc_path.as_str() {
            "nameko.exceptions.MalformedRequest" => Error::MalformedRequest(argument()),
            "nameko.exceptions.MethodNotFound" => Error::MethodNotFound(argument()),
            "nameko.exceptions.IncorrectSignature" => Error::IncorrectSignature(argument()),
            _ => exceptions::received(self.into()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}
