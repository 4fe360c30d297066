//! Conversion of arguments and results.

use crate::{
    error::{Error, Result},
    exceptions,
    protocol::Fault,
    reply::Outcome,
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
        None => Error::raised(fault),
    }
}
