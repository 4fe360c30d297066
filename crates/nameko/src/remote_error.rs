//! Errors raised by remote methods.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::protocol::Fault;

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
}

impl RemoteError {
    /// Returns an argument that the error was raised with. Numbers and booleans are parsed from
    /// their text form on the wire.
    ///
    /// Returns `None` if there is no such argument, or if it is not a `T`.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Option<T> {
        let value = self.exc_args.get(index)?;
        if let Ok(argument) = T::deserialize(value) {
            return Some(argument);
        }
        match value.as_str()? {
            "None" => T::deserialize(Value::Null).ok(),
            "True" => T::deserialize(Value::Bool(true)).ok(),
            "False" => T::deserialize(Value::Bool(false)).ok(),
            text => serde_json::from_str(text).ok(),
        }
    }
}

impl From<Fault> for RemoteError {
    fn from(fault: Fault) -> Self {
        Self {
            exc_type: fault.exc_type,
            exc_path: fault.exc_path,
            exc_args: fault.exc_args,
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
            value: error.value,
            extension: None,
        }
    }
}
