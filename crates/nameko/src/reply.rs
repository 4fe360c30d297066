//! Return values of entrypoint methods.

use std::any::Any;

use crate::{
    error::{Error, Result},
    protocol::Fault,
    serialization::{self, Payload},
};

/// The outcome of a worker: the return value of the method, or the error that it raised.
pub type Outcome = std::result::Result<Box<dyn Reply>, Fault>;

/// A return type of entrypoint methods: any type that implements `serde::Serialize`.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot return `{Self}`",
    label = "this value cannot be sent as a reply",
    note = "a reply is a value that implements `serde::Serialize + Send + Sync`: derive it on your own types"
)]
pub trait Reply: Any + Send + Sync {
    /// Serializes the value as JSON, formatted like Python's `json.dumps`.
    ///
    /// # Errors
    /// [`Error::Serialization`] if JSON cannot represent the value, such as a map with keys that
    /// are not strings.
    fn to_json(&self) -> Result<Vec<u8>>;

    /// Returns the name of the value in error messages.
    fn describe(&self) -> String;

    /// Returns the value for serialization in any format.
    fn as_serialize(&self) -> &dyn erased_serde::Serialize;

    /// Converts to `Any`, for entrypoints that downcast their replies.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync>;
}

impl<T: serde::Serialize + Send + Sync + 'static> Reply for T {
    fn to_json(&self) -> Result<Vec<u8>> {
        // A payload received from a peer is forwarded unchanged.
        if let Some(payload) = (self as &dyn Any).downcast_ref::<Payload>() {
            let text = payload.to_json()?;
            return Ok(serialization::python(text.get()).into_owned().into_bytes());
        }
        serialization::to_vec(self).map_err(Error::from)
    }

    fn describe(&self) -> String {
        std::any::type_name::<T>().to_owned()
    }

    fn as_serialize(&self) -> &dyn erased_serde::Serialize {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync> {
        self
    }
}
