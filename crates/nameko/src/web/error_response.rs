//! The HTTP response to an error.

use std::any::Any;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::protocol::FaultExtension;

/// The HTTP response to an error. Travels with the error's [`Fault`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ErrorResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Content type and body. `None`: the text `Error: {exc_type}: {value}`.
    pub(super) body: Option<(HeaderValue, Bytes)>,
}

impl ErrorResponse {
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}

impl FaultExtension for ErrorResponse {
    fn is_client_error(&self) -> bool {
        self.status.as_u16() < 500
    }

    fn equals(&self, other: &dyn FaultExtension) -> bool {
        (other as &dyn Any).downcast_ref() == Some(self)
    }
}
