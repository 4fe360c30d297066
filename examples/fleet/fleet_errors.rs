//! An error that services and clients of the fleet know by its class. Its twin in Python lies beside it.

use nameko::prelude::*;

#[derive(Debug, thiserror::Error, Exception)]
#[error("no order {0}")]
#[exception("fleet_errors.NotFound")]
pub(crate) struct NotFound(pub(crate) u64);
