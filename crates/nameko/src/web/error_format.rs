//! The format of error responses.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Map, Value, json};

use super::{
    error_response::ErrorResponse,
    json::Json,
    response::{IntoResponse, Response},
};
use crate::{error::Result, protocol::Fault};

/// The format of error responses, set with
/// [`ContainerBuilder::http_errors`](crate::ContainerBuilder::http_errors) or
/// [`Services::http_errors`](crate::Services::http_errors).
///
/// It formats the errors of methods, arguments, dependencies and limits, and those of requests that
/// match no route. Responses of layers, and errors with their own
/// [`body`](super::Error::body), stay as they are. Without a format, the body is Nameko's
/// `Error: {exc_type}: {value}`.
///
/// Implemented for closures. [`ProblemDetails`] is a ready-made one.
///
/// ```
/// use nameko::{prelude::*, web::{Failure, Json}};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// # fn main() -> Result<()> {
/// let shop = Container::builder::<Shop>(Config::default())
///     .http_errors(|failure: &Failure<'_>| {
///         Json(serde_json::json!({"code": failure.exc_type(), "message": failure.message()}))
///     })
///     .build()?;
/// # Ok(()) }
/// ```
pub trait ErrorFormat: Send + Sync + 'static {
    /// Returns the content of the response. Its status is that of the failure; the headers of the
    /// failure, such as `Allow`, are added unless the response has them.
    ///
    /// # Errors
    /// If the content cannot be formatted; the client receives Nameko's format.
    fn format(&self, failure: &Failure<'_>) -> Result<Response>;
}

impl<F, R> ErrorFormat for F
where
    F: Fn(&Failure<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    fn format(&self, failure: &Failure<'_>) -> Result<Response> {
        self(failure).into_response()
    }
}

/// A failed request, to be answered by an [`ErrorFormat`].
#[derive(Debug)]
pub struct Failure<'a> {
    fault: &'a Fault,
    status: StatusCode,
    request: &'a RequestHead,
}

/// The head of a request, kept for a format.
#[derive(Debug)]
pub(super) struct RequestHead {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl RequestHead {
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        }
    }
}

impl Failure<'_> {
    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the class of the error, such as `NotFound`.
    pub fn exc_type(&self) -> &str {
        &self.fault.exc_type
    }

    /// Returns the dotted path of the class, such as `nameko.exceptions.BadRequest`.
    pub fn exc_path(&self) -> &str {
        &self.fault.exc_path
    }

    /// Returns the arguments of the error.
    pub fn exc_args(&self) -> &[Value] {
        &self.fault.exc_args
    }

    /// Returns the error as text.
    pub fn message(&self) -> &str {
        &self.fault.value
    }

    /// Returns `true` for errors of methods that have no status of their own.
    fn is_internal(&self) -> bool {
        let has_status = self.fault.extension::<ErrorResponse>().is_some();
        self.status == StatusCode::INTERNAL_SERVER_ERROR && !has_status
    }

    /// Returns the method of the request.
    pub fn method(&self) -> &Method {
        &self.request.method
    }

    /// Returns the path and the query of the request, percent-encoded.
    pub fn uri(&self) -> &Uri {
        &self.request.uri
    }

    /// Returns the headers of the request, for example to negotiate the content type.
    pub fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }
}

/// Formats the response to a failed request. Other responses stay as they are.
pub(super) fn apply(
    format: &dyn ErrorFormat,
    mut response: Response,
    request: &RequestHead,
) -> Response {
    let Some(fault) = response.take_fault() else {
        return response;
    };
    let failure = Failure {
        fault: &fault,
        status: response.status_code(),
        request,
    };
    let formatted = match format.format(&failure) {
        Ok(formatted) => formatted,
        Err(error) => {
            tracing::error!("cannot format the error {}: {error}", fault.exc_type);
            return response;
        }
    };
    let status = response.status_code();
    let mut formatted = formatted.status(status);
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && !formatted.headers().contains_key(name) {
            formatted.headers_mut().append(name, value.clone());
        }
    }
    formatted
}

/// Problem details in JSON, `application/problem+json`. Source: RFC 9457.
///
/// The members are `type`, `title` (the reason phrase of the status), `status`, `detail` (the error
/// as text), `instance` (the path of the request), and `exc_type` (the class of the error). A `500`
/// has no `detail` unless it is a [`web::Error`](super::Error): the text of an unexpected error may
/// be internal, a query for example.
///
/// ```
/// use nameko::{prelude::*, web::ProblemDetails};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// let services = nameko::services![Shop]
///     .http_errors(ProblemDetails::new().types("https://shop.example/errors/"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ProblemDetails {
    types: Option<String>,
}

impl ProblemDetails {
    /// Creates the format, with the type `about:blank` for all errors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the prefix of the types: `https://shop.example/errors/` makes
    /// `https://shop.example/errors/NotFound` of a `NotFound`.
    #[must_use]
    pub fn types(mut self, prefix: impl Into<String>) -> Self {
        self.types = Some(prefix.into());
        self
    }
}

impl ErrorFormat for ProblemDetails {
    fn format(&self, failure: &Failure<'_>) -> Result<Response> {
        let mut problem = Map::new();
        let exc_type = failure.exc_type();
        let kind = match &self.types {
            Some(prefix) => format!("{prefix}{exc_type}"),
            None => "about:blank".to_owned(),
        };
        problem.insert("type".to_owned(), kind.into());
        let title = failure.status().canonical_reason().unwrap_or(exc_type);
        problem.insert("title".to_owned(), title.into());
        problem.insert("status".to_owned(), json!(failure.status().as_u16()));
        if !failure.is_internal() {
            problem.insert("detail".to_owned(), failure.message().into());
        }
        problem.insert("instance".to_owned(), failure.uri().path().into());
        problem.insert("exc_type".to_owned(), exc_type.into());
        let mut response = Json(problem).into_response()?;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        Ok(response)
    }
}
