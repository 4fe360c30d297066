//! Caught panics.

use std::{any::Any, error::Error};

/// Returns the message of a panic, from the payload that `catch_unwind` returns.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

/// Returns the error that a panic was raised with, by `panic_any` or `resume_unwind`.
pub(crate) fn error(payload: &(dyn Any + Send)) -> Option<&(dyn Error + 'static)> {
    if let Some(error) = payload.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return Some(&**error);
    }
    #[cfg(feature = "anyhow")]
    if let Some(error) = payload.downcast_ref::<anyhow::Error>() {
        return Some(error.as_ref());
    }
    payload
        .downcast_ref::<crate::error::Error>()
        .map(|error| error as &(dyn Error + 'static))
}
