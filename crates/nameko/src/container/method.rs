//! Handles to the methods of a service.

use crate::{arguments::Param, protocol::Fault};

/// The method that an entrypoint runs.
#[derive(Debug, Clone)]
pub struct MethodHandle {
    /// Index in the container's list of entrypoints.
    pub(super) index: usize,
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// Class names of the errors that are the caller's fault.
    pub(super) expected: &'static [&'static str],
    /// Arguments, or parts of them, that no log shows.
    pub(super) sensitive: &'static [&'static str],
    pub(super) raw_message: bool,
}

impl MethodHandle {
    /// The method's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the error is the caller's fault: the method lists it in `expected_exceptions`, or it is a `web::Error` with
    /// a status below 500.
    pub fn expects(&self, fault: &Fault) -> bool {
        self.expected.contains(&fault.exc_type.as_str()) || fault.is_client_error()
    }

    /// Whether it takes undecoded messages: a [`RawMessage`](crate::messaging::RawMessage).
    pub fn takes_raw_message(&self) -> bool {
        self.raw_message
    }

    /// Its parameters, without `self`.
    pub fn params(&self) -> &'static [Param] {
        self.params
    }
}
