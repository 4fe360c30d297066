//! Errors raised by remote methods.

use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use crate::{
    exception_argument,
    protocol::{Details, Fault},
    serialization,
};

/// An error that a remote method raised.
///
/// Displays as in Nameko: `ValueError bad`. Source: the error object of a reply, `exc_type`,
/// `exc_path`, `exc_args`, `value`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{exc_type} {value}")]
#[non_exhaustive]
pub struct RemoteError {
    /// The class name: `ValueError`.
    pub exc_type: String,
    /// The class with its module: `builtins.ValueError`. Empty if the peer does not send it.
    pub exc_path: String,
    /// The arguments it was raised with. All leaves are text.
    pub exc_args: Vec<Value>,
    /// The error as text.
    pub value: String,
    /// The arguments with their types, as a JSON list. Sent by Rust services.
    pub(crate) exc_args_json: Option<String>,
}

impl RemoteError {
    /// Returns an argument that the error was raised with.
    ///
    /// An argument of a Rust service has the value that it was sent with. In arguments of a Python
    /// service, all leaves are text: a number or boolean is parsed from it, and `"None"` is `None`
    /// for an `Option`.
    ///
    /// Returns `None` if there is no such argument, or if it is not a `T`.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Option<T> {
        if let Some(argument) = self.typed_arg(index) {
            return Some(argument);
        }
        let value = self.exc_args.get(index)?;
        exception_argument::read(value).ok()
    }

    /// Returns an argument as a Rust service has sent it.
    fn typed_arg<T: DeserializeOwned>(&self, index: usize) -> Option<T> {
        let text = self.exc_args_json.as_deref()?;
        let arguments: Vec<Box<RawValue>> = serialization::from_str(text).ok()?;
        serialization::from_str(arguments.get(index)?.get()).ok()
    }
}

impl From<Fault> for RemoteError {
    fn from(fault: Fault) -> Self {
        Self {
            exc_type: fault.exc_type,
            exc_path: fault.exc_path,
            exc_args: fault.exc_args,
            exc_args_json: fault.details.and_then(|details| details.exc_args_json),
            value: fault.value,
        }
    }
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        Self {
            exc_type: error.exc_type,
            exc_path: error.exc_path,
            exc_args: error.exc_args,
            details: Details::of_json(error.exc_args_json),
            value: error.value,
            extension: None,
        }
    }
}
