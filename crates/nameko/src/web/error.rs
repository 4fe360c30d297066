//! Errors with an HTTP status.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::response::{IntoHeaders, IntoResponse, Response};
use crate::protocol::Fault;

/// An error with the HTTP status that a client gets. Turns into [`nameko::Error`](crate::Error), so `?` takes it.
///
/// ```
/// use nameko::web::{self, StatusCode};
///
/// fn find(id: u64) -> nameko::Result<String> {
///     Err(web::Error::new(StatusCode::NOT_FOUND, format!("no order {id}")))?
/// }
///
/// assert_eq!(find(17).unwrap_err().to_string(), "no order 17");
/// ```
///
/// The client reads `Error: NotFound: no order 17`, with the status 404. An error type of your own becomes one with
/// `impl From<YourError> for web::Error`, where the method returns `Result<T, web::Error>`.
#[derive(Debug, Clone)]
pub struct Error {
    /// With the response in it.
    fault: Box<Fault>,
}

/// What an error says about its response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The content type and the body, where it is not `Error: {exc_type}: {value}`.
    pub(super) body: Option<(HeaderValue, Bytes)>,
}

impl Error {
    /// An error whose class is named after the status (`NotFound` for 404) and whose text is `value`.
    pub fn new(status: StatusCode, value: impl Into<String>) -> Self {
        let value = value.into();
        let fault = match status {
            StatusCode::BAD_REQUEST => Fault::nameko("BadRequest", value),
            _ => {
                let reason = status.canonical_reason().unwrap_or("Error");
                Fault::new(reason.replace([' ', '-', '\''], ""), value)
            }
        };
        Self::with_response(
            fault,
            ErrorResponse {
                status,
                headers: HeaderMap::new(),
                body: None,
            },
        )
    }

    fn with_response(mut fault: Fault, response: ErrorResponse) -> Self {
        fault.web = Some(Box::new(response));
        Self {
            fault: Box::new(fault),
        }
    }

    /// `400 Bad Request`.
    pub fn bad_request(value: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, value)
    }

    /// `404 Not Found`.
    pub fn not_found(value: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, value)
    }

    /// Calls the error's class `exc_type`: `OrderNotFound`, for example.
    #[must_use]
    pub fn exc_type(mut self, exc_type: impl Into<String>) -> Self {
        let web = self.fault.web.take();
        *self.fault = Fault {
            web,
            ..Fault::new(exc_type, self.fault.value)
        };
        self
    }

    /// Adds headers to the response.
    ///
    /// # Errors
    /// A name or a value cannot stand in a header.
    pub fn headers(mut self, headers: impl IntoHeaders) -> crate::Result<Self> {
        let headers = headers.into_headers()?;
        if let Some(response) = &mut self.fault.web {
            response.headers.extend(headers);
        }
        Ok(self)
    }

    /// Answers with this body instead: `Json(..)`, for example. A stream is no body for an error, and is left out.
    ///
    /// # Errors
    /// The body cannot be sent.
    pub fn body(mut self, body: impl IntoResponse) -> crate::Result<Self> {
        let body = body.into_response()?.content_type_and_body();
        if let Some(response) = &mut self.fault.web {
            response.body = body;
        }
        Ok(self)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        // Every error is made with a response.
        self.fault
            .web
            .as_ref()
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, |it| it.status)
    }

    /// The container takes no more work.
    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping")
    }

    /// The response to it.
    pub(super) fn into_response(self) -> Response {
        Response::of_fault(&self.fault, false)
    }

    /// The error object, with the response in it.
    pub(crate) fn fault(&self) -> Fault {
        (*self.fault).clone()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::Raised(*error.fault)
    }
}

/// So that `?` works on what `nameko::Error` is returned by, in a method that returns `Result<T, web::Error>`.
impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        let fault = Fault::of(&error);
        if fault.web.is_some() {
            return Self {
                fault: Box::new(fault),
            };
        }
        let response = ErrorResponse {
            status: Response::of_fault(&fault, false).status_code(),
            headers: HeaderMap::new(),
            body: None,
        };
        Self::with_response(fault, response)
    }
}
