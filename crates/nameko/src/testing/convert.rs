//! Conversion of arguments and results.

use serde::Serialize;

use crate::{
    arguments::Arguments,
    error::{Error, Result},
    exceptions,
    protocol::Fault,
    reply::Outcome,
    serialization,
};

/// Serializes the result of a worker as JSON.
pub(super) fn json(outcome: &Outcome) -> Result<Vec<u8>> {
    match outcome {
        Ok(reply) => reply.to_json(),
        Err(fault) => Err(raised(fault.clone())),
    }
}

/// Returns the error of a method: of its type if that is registered, as for callers, else
/// [`Error::Raised`].
fn raised(fault: Fault) -> Error {
    match exceptions::from_remote(&fault.clone().into()) {
        Some(error) => Error::custom(fault, error),
        None => Error::Raised(fault),
    }
}

/// Converts arguments: a list to positional ones, an object to named ones, `null` to none.
pub(super) fn bindable(arguments: &impl Serialize) -> Result<Arguments> {
    let json = String::from_utf8(serialization::to_vec(arguments)?)?;
    match json.as_bytes().first() {
        Some(b'[') => Arguments::from_json(&json, "{}"),
        Some(b'{') => Arguments::from_json("[]", &json),
        Some(b'n') => Ok(Arguments::new()),
        _ => Err(Error::IncorrectSignature(
            "arguments must be a tuple such as `(value,)`, or a struct or map of named ones"
                .to_owned(),
        )),
    }
}
