//! Return values of entrypoint methods.

use std::any::Any;

use crate::{
    error::{Error, Result},
    protocol::Fault,
    serialization::{self, Payload},
};

/// The outcome of one worker: the return value of the method, or the error that it raised.
pub type Outcome = std::result::Result<Box<dyn Reply>, Fault>;

/// A value that an entrypoint method can return: any type that serde serialises.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot return `{Self}`",
    label = "this value cannot be sent as a reply",
    note = "a reply is a value that implements `serde::Serialize + Send + Sync`: derive it on your own types"
)]
pub trait Reply: Send + Sync + 'static {
    /// The value as JSON text, written as Python's `json.dumps` writes it.
    ///
    /// # Errors
    /// [`Error::Serialization`] if the value has no JSON form, such as a map whose keys are not strings.
    fn to_json(&self) -> Result<Vec<u8>>;

    /// The value's name in error messages.
    fn describe(&self) -> String;

    /// The value for any of serde's formats.
    fn as_serialize(&self) -> &dyn erased_serde::Serialize;

    /// The value itself, for an entrypoint that knows the type of its replies.
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
