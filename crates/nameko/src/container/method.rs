//! Handles to the methods of a service.

use crate::{arguments::Param, extractor::Extractors, protocol::Fault};

/// A handle to a service method with an entrypoint.
#[derive(Debug, Clone)]
pub struct MethodHandle {
    /// Index in the container's list of entrypoints.
    pub(super) index: usize,
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// Class names of errors caused by the caller.
    pub(super) expected: &'static [&'static str],
    /// Arguments, or parts of them, that are redacted in logs.
    pub(super) sensitive: &'static [&'static str],
    pub(super) raw_message: bool,
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for requests"))]
    pub(crate) extractors: Extractors,
}

impl MethodHandle {
    /// Returns the name of the method.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns `true` if the caller caused the error: the method lists it in `expected_exceptions`,
    /// or it is a `web::Error` with a status below 500.
    pub fn expects(&self, fault: &Fault) -> bool {
        self.expected.contains(&fault.exc_type.as_str()) || fault.is_client_error()
    }

    /// Returns the arguments that are redacted in logs.
    pub(crate) fn sensitive(&self) -> &'static [&'static str] {
        self.sensitive
    }

    /// Returns `true` if the method has a [`RawMessage`](crate::messaging::RawMessage) parameter,
    /// an undecoded message.
    pub fn takes_raw_message(&self) -> bool {
        self.raw_message
    }

    /// Returns the parameters, without `self`.
    pub fn params(&self) -> &'static [Param] {
        self.params
    }
}
