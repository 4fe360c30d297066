//! Errors with an HTTP status.

use std::{error::Error as StdError, fmt, sync::Once};

use http::{HeaderValue, StatusCode, header};

use super::{
    error_response::ErrorResponse,
    response::{IntoHeaders, IntoResponse, Response},
};
use crate::{error_chain::chain, exceptions, protocol::Fault};

/// Time after which a client should retry while a service starts or stops. Another instance may
/// answer sooner, so it is short.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error with an HTTP status. Converts into [`nameko::Error`](crate::Error), for `?`.
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
/// The client receives `Error: NotFound: no order 17` with the status 404. A custom error type
/// converts with `impl From<YourError> for web::Error`, in methods that return `Result<T,
/// web::Error>`.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    fault: Fault,
    response: ErrorResponse,
}

impl Error {
    /// Creates an error with the text `value`. Its class is named after the status, such as
    /// `NotFound` for 404.
    pub fn new(status: StatusCode, value: impl Into<String>) -> Self {
        let value = value.into();
        let fault = match status {
            StatusCode::BAD_REQUEST => Fault::nameko("BadRequest", value),
            _ => {
                let reason = status.canonical_reason().unwrap_or("Error");
                Fault::new(reason.replace([' ', '-', '\''], ""), value)
            }
        };
        Self::with_response(fault, ErrorResponse::new(status))
    }

    fn with_response(fault: Fault, response: ErrorResponse) -> Self {
        // Every value is made here, so that none is converted to a `Fault` before its type is
        // known.
        static REGISTRATION: Once = Once::new();
        REGISTRATION.call_once(|| {
            exceptions::register_local::<Self>(|error| Some(error.downcast_ref::<Self>()?.fault()));
        });
        Self(Box::new(Inner { fault, response }))
    }

    /// Creates a `400 Bad Request`.
    pub fn bad_request(value: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, value)
    }

    /// Creates a `404 Not Found`.
    pub fn not_found(value: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, value)
    }

    /// Sets the class of the error, such as `OrderNotFound`.
    #[must_use]
    pub fn exc_type(mut self, exc_type: impl Into<String>) -> Self {
        let value = std::mem::take(&mut self.0.fault.value);
        self.0.fault = Fault::new(exc_type, value);
        self
    }

    /// Adds headers to the response.
    ///
    /// # Errors
    /// If a name or a value is not valid in a header.
    pub fn headers(mut self, headers: impl IntoHeaders) -> crate::Result<Self> {
        self.0.response.headers.extend(headers.into_headers()?);
        Ok(self)
    }

    /// Replaces the body of the response, for example with `Json(..)`. A stream is ignored.
    ///
    /// # Errors
    /// If the body cannot be serialized.
    pub fn body(mut self, body: impl IntoResponse) -> crate::Result<Self> {
        self.0.response.body = body.into_response()?.content_type_and_body();
        Ok(self)
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.0.response.status
    }

    /// Creates a `401 Unauthorized`: the client has to authenticate. `challenge` is the value of
    /// `WWW-Authenticate`, such as `Bearer`.
    pub fn unauthorized(challenge: &'static str, value: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, value);
        if let Ok(challenge) = HeaderValue::from_str(challenge) {
            let headers = &mut error.0.response.headers;
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        error
    }

    /// Creates a `403 Forbidden`.
    pub fn forbidden(value: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, value)
    }

    /// Returns a clone of the first such error among an error and its causes, also of one that was
    /// converted to a [`nameko::Error`](crate::Error).
    pub(super) fn among_causes(error: &(dyn StdError + 'static)) -> Option<Self> {
        chain(error).find_map(|error| {
            error.downcast_ref::<Self>().cloned().or_else(|| {
                let fault = Fault::of(error.downcast_ref::<crate::Error>()?);
                let response = fault.extension::<ErrorResponse>()?.clone();
                Some(Self::with_response(fault, response))
            })
        })
    }

    /// Creates the error of a stopping container.
    pub(super) fn stopping() -> Self {
        Self::unavailable("the service is stopping")
    }

    /// Creates the error of a container that has not yet started.
    pub(super) fn starting() -> Self {
        Self::unavailable("the service is starting")
    }

    fn unavailable(value: &str) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, value);
        let headers = &mut error.0.response.headers;
        headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        error
    }

    /// Converts the error into its response.
    pub(super) fn into_response(self) -> Response {
        Response::of_fault(&self.into_fault(), false)
    }

    fn fault(&self) -> Fault {
        self.clone().into_fault()
    }

    /// The error object, with the response as its extension.
    fn into_fault(self) -> Fault {
        let Inner { fault, response } = *self.0;
        fault.with_extension(response)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fault.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::raised(error.into_fault())
    }
}

/// Lets `?` convert a `nameko::Error` in methods that return `Result<T, web::Error>`.
impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        let fault = Fault::of(&error);
        let response = match fault.extension::<ErrorResponse>() {
            Some(response) => response.clone(),
            None => ErrorResponse::new(Response::of_fault(&fault, false).status_code()),
        };
        Self::with_response(fault, response)
    }
}
