//! An error whose class all services and clients of the fleet know. `fleet_errors.py` defines it in
//! Python.

use nameko::prelude::*;

#[derive(Debug, thiserror::Error, Exception)]
#[error("no order {0}")]
#[exception("fleet_errors.NotFound")]
pub(crate) struct NotFound(pub(crate) u64);
