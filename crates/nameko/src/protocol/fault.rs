//! Error objects of replies.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{error_chain::causes, panics};

/// The error object of a reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Name of the class: `ValueError`.
    pub exc_type: String,
    /// Dotted path of the class: `builtins.ValueError`.
    #[serde(default)]
    pub exc_path: String,
    /// Arguments of the exception. Nameko converts leaves to text.
    #[serde(default)]
    pub exc_args: Vec<Value>,
    /// The arguments with their types, as a JSON list in the form of a text, which each format can
    /// represent. Only Rust services send and read it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_if_any"
    )]
    pub(crate) exc_args_json: Option<String>,
    /// The error as text.
    #[serde(default, deserialize_with = "text")]
    pub value: String,
    /// Texts of the causes of the error, outermost first, for the log of this process.
    #[serde(skip)]
    pub(crate) causes: Vec<String>,
    /// Data for an entrypoint of this process.
    #[serde(skip)]
    pub(crate) extension: Option<Arc<dyn FaultExtension>>,
}

/// Data that an error type attaches to its fault for an entrypoint of the same process, such as the
/// HTTP response of a `web::Error`. Never sent.
pub(crate) trait FaultExtension: Any + fmt::Debug + Send + Sync {
    /// Whether the caller caused the error. Such errors are logged as warnings.
    fn is_client_error(&self) -> bool;

    /// Compares with the extension of another fault.
    fn equals(&self, other: &dyn FaultExtension) -> bool;
}

impl PartialEq for dyn FaultExtension {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

/// Nameko sends iterable exceptions as a list instead of text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// Ignores values that are not text.
fn text_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

impl Fault {
    /// Creates an error of the class `exc_type`, without a module, with the argument `value`.
    pub fn new(exc_type: impl Into<String>, value: impl Into<String>) -> Self {
        let exc_type = exc_type.into();
        Self {
            exc_path: exc_type.clone(),
            ..Self::with_path(exc_type, String::new(), value.into())
        }
    }

    /// Adds the causes of `error`, which the log shows.
    #[must_use]
    pub(crate) fn with_causes_of(mut self, error: &(dyn StdError + 'static)) -> Self {
        self.causes = causes(error);
        self
    }

    /// Attaches `extension`, in place of any other.
    #[cfg(feature = "http")]
    pub(crate) fn with_extension(self, extension: impl FaultExtension) -> Self {
        Self {
            extension: Some(Arc::new(extension)),
            ..self
        }
    }

    /// Returns the extension if it is a `T`.
    #[cfg(feature = "http")]
    pub(crate) fn extension<T: FaultExtension>(&self) -> Option<&T> {
        let extension: &dyn Any = self.extension.as_deref()?;
        extension.downcast_ref()
    }

    /// Returns `true` if the extension reports a client error.
    pub(crate) fn is_client_error(&self) -> bool {
        self.extension
            .as_deref()
            .is_some_and(|extension| extension.is_client_error())
    }

    /// Creates an error of the Rust type `path`: `my_crate::orders::NotFound` becomes
    /// `my_crate.orders.NotFound`.
    pub(crate) fn from_type(path: &str, value: String) -> Self {
        let plain = path.split('<').next().unwrap_or(path);
        let exc_type = plain.rsplit("::").next().unwrap_or(plain);
        Self::with_path(exc_type.to_owned(), plain.replace("::", "."), value)
    }

    /// Creates one of Nameko's exceptions.
    pub(crate) fn nameko(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("nameko.exceptions.{exc_type}"),
            value.into(),
        )
    }

    /// Creates one of Python's built-in exceptions.
    pub(crate) fn python(exc_type: &str, value: impl Into<String>) -> Self {
        Self::with_path(
            exc_type.to_owned(),
            format!("builtins.{exc_type}"),
            value.into(),
        )
    }

    /// Creates the error of an unserializable result. Upstream sends it without arguments.
    pub(crate) fn unserializable(what: &str) -> Self {
        Self {
            exc_args: Vec::new(),
            ..Self::nameko(
                "UnserializableValueError",
                format!("Unserializable value: `{what}`"),
            )
        }
    }

    /// Returns the fault of a method that panicked.
    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        match panics::error(payload) {
            Some(error) => Self::new("Panic", error.to_string()).with_causes_of(error),
            None => Self::new("Panic", panics::message(payload)),
        }
    }

    fn with_path(exc_type: String, exc_path: String, value: String) -> Self {
        Self {
            exc_type,
            exc_path,
            exc_args: vec![Value::String(value.clone())],
            exc_args_json: None,
            value,
            causes: Vec::new(),
            extension: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}
