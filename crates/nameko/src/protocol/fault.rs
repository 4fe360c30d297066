//! Error objects of replies.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    /// Boxed, since most errors have neither and results with large errors are slow to move.
    #[serde(
        default,
        rename = "exc_args_json",
        skip_serializing_if = "has_no_json",
        serialize_with = "write_json",
        deserialize_with = "read_json"
    )]
    pub(crate) details: Option<Box<Details>>,
    /// The error as text.
    #[serde(default, deserialize_with = "text")]
    pub value: String,
    /// Data for an entrypoint of this process.
    #[serde(skip)]
    pub(crate) extension: Option<Arc<dyn FaultExtension>>,
}

/// Parts of a [`Fault`] that most errors lack.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Details {
    /// The arguments with their types, as a JSON list in the form of a text, which each format can
    /// represent. Only Rust services send and read it.
    pub(crate) exc_args_json: Option<String>,
    /// Texts of the causes of the error, outermost first, for the log of this process.
    pub(crate) causes: Vec<String>,
}

impl Details {
    /// Returns the details of a received error.
    pub(crate) fn of_json(exc_args_json: Option<String>) -> Option<Box<Self>> {
        let details = |text| Self {
            exc_args_json: Some(text),
            causes: Vec::new(),
        };
        exc_args_json.map(details).map(Box::new)
    }
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
fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Details>>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Details::of_json(Some(text)),
        _ => None,
    })
}

fn has_no_json(details: &Option<Box<Details>>) -> bool {
    !matches!(details, Some(details) if details.exc_args_json.is_some())
}

fn write_json<S: Serializer>(
    details: &Option<Box<Details>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = details
        .as_ref()
        .and_then(|details| details.exc_args_json.as_ref());
    text.serialize(serializer)
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
        let causes = causes(error);
        if !causes.is_empty() {
            self.details.get_or_insert_default().causes = causes;
        }
        self
    }

    /// Returns the texts of the causes of the error, outermost first.
    pub(crate) fn causes(&self) -> &[String] {
        self.details.as_ref().map_or(&[], |details| &details.causes)
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
            details: None,
            value,
            extension: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}
