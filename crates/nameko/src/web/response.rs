//! HTTP responses.

use std::{
    any::Any,
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde::{Serialize, Serializer};

use super::{error_response::ErrorResponse, json::Json};
use crate::{
    error::{Error, Result},
    protocol::Fault,
    reply::Reply,
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An HTTP response: a status, headers and a body.
///
/// ```
/// use nameko::web::{Response, StatusCode};
///
/// # fn main() -> nameko::Result<()> {
/// let response = Response::new("made")
///     .status(StatusCode::CREATED)
///     .header("Location", "/orders/17")?;
/// assert_eq!(response.status_code(), 201);
/// # Ok(()) }
/// ```
pub struct Response {
    status: StatusCode,
    /// A custom reason phrase.
    reason: Option<ReasonPhrase>,
    headers: HeaderMap,
    content: Content,
    /// The error in the body, unless the error has a body of its own.
    fault: Option<Box<Fault>>,
}

/// The body of a response.
#[derive(Default)]
pub(super) enum Content {
    #[default]
    Empty,
    Bytes(Bytes),
    /// Wrapped in a never contended lock, since replies must be `Sync` and streams need not be.
    Stream(Mutex<ByteStream>),
}

/// A streamed body.
pub(super) type ByteStream =
    Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn StdError + Send + Sync>>> + Send>>;

impl Response {
    /// Creates a `200 OK` with text.
    pub fn new(text: impl Into<String>) -> Self {
        Self::typed(TEXT, text.into())
    }

    /// Creates a response without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            reason: None,
            headers: HeaderMap::new(),
            content: Content::Empty,
            fault: None,
        }
    }

    /// Creates a `200 OK` with bytes, `application/octet-stream`.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::typed(BYTES, bytes)
    }

    /// Creates a `200 OK` with a JSON value.
    ///
    /// # Errors
    /// If JSON cannot represent the value.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        match serde_json::to_vec(value) {
            Ok(json) => Ok(Self::typed(JSON, json)),
            Err(error) => Err(Error::raised(Fault::unserializable(&format!(
                "{}: {error}",
                std::any::type_name_of_val(value)
            )))),
        }
    }

    /// Creates a `200 OK` with a streamed body, `application/octet-stream`.
    ///
    /// The stream is polled as the client reads. An `Err` item aborts the connection, so that the
    /// client detects the incomplete body. The stream runs after the worker has ended, and is
    /// dropped if the client disconnects.
    pub fn stream<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let stream = stream.map(|item| item.map(Into::into).map_err(Into::into));
        Self {
            content: Content::Stream(Mutex::new(Box::pin(stream))),
            ..Self::typed(BYTES, Bytes::new())
        }
    }

    /// Creates a `303 See Other`, which redirects the client to `GET` `location`.
    ///
    /// # Errors
    /// If `location` is not valid in a header.
    pub fn redirect(location: &str) -> Result<Self> {
        Self::empty(StatusCode::SEE_OTHER).header(header::LOCATION, location)
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header, replacing others of its name.
    ///
    /// # Errors
    /// If the name or the value is not valid in a header.
    pub fn header<N, V>(mut self, name: N, value: V) -> Result<Self>
    where
        N: TryInto<HeaderName, Error: fmt::Display>,
        V: TryInto<HeaderValue, Error: fmt::Display>,
    {
        self.headers
            .insert(header_name(name)?, header_value(value)?);
        Ok(self)
    }

    /// Returns the status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Returns the headers. `Content-Length` and `Date` are added when the response is sent.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the headers for modification.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Returns the body unless it is a stream; for tests.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Empty => Some(&[]),
            Content::Bytes(bytes) => Some(bytes),
            Content::Stream(_) => None,
        }
    }

    pub(super) fn html(text: String) -> Self {
        Self::typed(HTML, text)
    }

    /// Wraps the stream of a streamed body.
    pub(super) fn map_stream(mut self, wrap: impl FnOnce(ByteStream) -> ByteStream) -> Self {
        if let Content::Stream(stream) = self.content {
            let stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.content = Content::Stream(Mutex::new(wrap(stream)));
        }
        self
    }

    fn typed(content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            reason: None,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]),
            content: Content::Bytes(body.into()),
            fault: None,
        }
    }

    /// Creates the response to an error: `Error: {exc_type}: {value}` as in Nameko, unless the
    /// error has a body.
    ///
    /// The status is the error's own; otherwise 400 for client errors, including `expected` ones,
    /// and 500 for others.
    pub(super) fn of_fault(fault: &Fault, expected: bool) -> Self {
        let text = || Self {
            fault: Some(Box::new(fault.clone())),
            ..Self::new(format!("Error: {}: {}\n", fault.exc_type, fault.value))
        };
        match fault.extension() {
            Some(ErrorResponse {
                status,
                headers,
                body,
            }) => {
                let mut response = match body {
                    Some((content_type, body)) => Self::typed(content_type.clone(), body.clone()),
                    None => text(),
                };
                response.headers.extend(headers.clone());
                response.status(*status)
            }
            None if expected || is_bad_request(fault) => text().status(StatusCode::BAD_REQUEST),
            None => text().status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// Returns a copy for providers: the status, the headers, and the body unless it is a stream.
    pub(super) fn shown(&self) -> Self {
        Self {
            status: self.status,
            reason: self.reason.clone(),
            headers: self.headers.clone(),
            content: match &self.content {
                Content::Bytes(bytes) => Content::Bytes(bytes.clone()),
                Content::Empty | Content::Stream(_) => Content::Empty,
            },
            fault: None,
        }
    }

    /// Takes the error for a format.
    pub(super) fn take_fault(&mut self) -> Option<Box<Fault>> {
        self.fault.take()
    }

    pub(super) fn set_reason(&mut self, reason: ReasonPhrase) {
        self.reason = Some(reason);
    }

    /// Splits the response into head and body.
    pub(super) fn into_parts(self) -> (http::response::Parts, Content) {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = self.status;
        head.headers = self.headers;
        if let Some(reason) = self.reason {
            head.extensions.insert(reason);
        }
        (head, self.content)
    }

    pub(super) fn content_type_and_body(self) -> Option<(HeaderValue, Bytes)> {
        let content_type = self.headers.get(header::CONTENT_TYPE).cloned();
        match self.content {
            Content::Bytes(bytes) => Some((content_type.unwrap_or(BYTES), bytes)),
            Content::Empty | Content::Stream(_) => None,
        }
    }
}

/// Serializes text as a string.
impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.serialize_bytes(bytes),
            },
            Self::Empty | Self::Stream(_) => serializer.serialize_unit(),
        }
    }
}

/// Returns `true` for Nameko's `BadRequest` and its subclasses.
fn is_bad_request(fault: &Fault) -> bool {
    let Some(class) = fault.exc_path.strip_prefix("nameko.exceptions.") else {
        return false;
    };
    matches!(
        class,
        "BadRequest"
            | "MalformedRequest"
            | "MethodNotFound"
            | "IncorrectSignature"
            | "ConnectionNotFound"
    )
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// The value for providers. The web server does not use `to_json`.
impl Reply for Response {
    fn to_json(&self) -> Result<Vec<u8>> {
        Err(Error::raised(Fault::unserializable(&self.describe())))
    }

    fn describe(&self) -> String {
        // Called for every response: faster than `format!`.
        let reason = self.status.canonical_reason().unwrap_or_default();
        ["<Response [", self.status.as_str(), " ", reason, "]>"].concat()
    }

    /// Returns the body, the value for tests.
    fn as_serialize(&self) -> &dyn erased_serde::Serialize {
        &self.content
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync> {
        self
    }
}

/// A return type of `#[http]` methods.
///
/// | type | status | content type |
/// |---|---|---|
/// | `String`, `&'static str` | 200 | `text/plain; charset=utf-8` |
/// | [`Json<T>`] | 200 | `application/json` |
/// | [`Html`] | 200 | `text/html; charset=utf-8` |
/// | `Vec<u8>`, `Bytes` | 200 | `application/octet-stream` |
/// | `()` | 204 | |
/// | `StatusCode` | the value | |
/// | `(status, T)`, `(status, headers, T)` | `status` | `T`'s, unless set in `headers` |
/// | [`Response`] | its own | its own |
///
/// A status is a [`StatusCode`] or a number. Headers are a `HeaderMap`, or a list of pairs:
/// `[("Location", "/orders/1")]`.
#[diagnostic::on_unimplemented(
    message = "an `#[http]` method cannot return `{Self}`",
    label = "not an HTTP response",
    note = "return text, `web::Json(value)`, `web::Html(text)`, bytes, `()`, `(status, body)`, `(status, headers, body)` or a `web::Response`"
)]
pub trait IntoResponse {
    /// Converts the value into a response.
    ///
    /// # Errors
    /// If the value cannot be sent; the client receives a 500.
    fn into_response(self) -> Result<Response>;
}

/// An HTML response, `text/html; charset=utf-8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html<T>(pub T);

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response> {
        Ok(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response> {
        Ok(Response::new(self))
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Result<Response> {
        Ok(Response::typed(TEXT, self))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Result<Response> {
        Ok(Response::bytes(self))
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Result<Response> {
        Ok(Response::bytes(self))
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Result<Response> {
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Result<Response> {
        Ok(Response::empty(self.into_status()?))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Result<Response> {
        Response::json(&self.0)
    }
}

impl<T: Into<String>> IntoResponse for Html<T> {
    fn into_response(self) -> Result<Response> {
        Ok(Response::html(self.0.into()))
    }
}

impl<S: IntoStatus, T: IntoResponse> IntoResponse for (S, T) {
    fn into_response(self) -> Result<Response> {
        Ok(self.1.into_response()?.status(self.0.into_status()?))
    }
}

impl<S: IntoStatus, H: IntoHeaders, T: IntoResponse> IntoResponse for (S, H, T) {
    fn into_response(self) -> Result<Response> {
        let (status, headers, body) = self;
        let mut response = body.into_response()?.status(status.into_status()?);
        response.headers.extend(headers.into_headers()?);
        Ok(response)
    }
}

/// A status code: a [`StatusCode`] or its number.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an HTTP status",
    label = "the first item of the tuple must be a status",
    note = "a status is a `web::StatusCode` or a `u16`"
)]
pub trait IntoStatus {
    /// Converts the value into a status.
    ///
    /// # Errors
    /// If the number is not from 200 to 999.
    fn into_status(self) -> Result<StatusCode>;
}

impl IntoStatus for StatusCode {
    fn into_status(self) -> Result<StatusCode> {
        self.as_u16().into_status()
    }
}

impl IntoStatus for u16 {
    fn into_status(self) -> Result<StatusCode> {
        StatusCode::from_u16(self)
            .ok()
            .filter(|status| !status.is_informational())
            .ok_or_else(|| {
                Error::raise(
                    "ValueError",
                    format!("{self} is not a response status: it must be from 200 to 999"),
                )
            })
    }
}

/// The headers of a response: a `HeaderMap`, or a list of pairs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of headers",
    label = "the second item of the tuple must be a list of headers",
    note = "headers are a `web::HeaderMap`, or pairs in an array or a `Vec`: `[(\"Location\", \"/orders/1\")]`"
)]
pub trait IntoHeaders {
    /// Converts the value into headers.
    ///
    /// # Errors
    /// If a name or a value is not valid in a header.
    fn into_headers(self) -> Result<HeaderMap>;
}

impl IntoHeaders for HeaderMap {
    fn into_headers(self) -> Result<HeaderMap> {
        Ok(self)
    }
}

impl<N, V, const COUNT: usize> IntoHeaders for [(N, V); COUNT]
where
    N: TryInto<HeaderName, Error: fmt::Display>,
    V: TryInto<HeaderValue, Error: fmt::Display>,
{
    fn into_headers(self) -> Result<HeaderMap> {
        pairs(self)
    }
}

impl<N, V> IntoHeaders for Vec<(N, V)>
where
    N: TryInto<HeaderName, Error: fmt::Display>,
    V: TryInto<HeaderValue, Error: fmt::Display>,
{
    fn into_headers(self) -> Result<HeaderMap> {
        pairs(self)
    }
}

fn pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<HeaderMap>
where
    N: TryInto<HeaderName, Error: fmt::Display>,
    V: TryInto<HeaderValue, Error: fmt::Display>,
{
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(header_name(name)?, header_value(value)?);
    }
    Ok(headers)
}

fn header_name<N: TryInto<HeaderName, Error: fmt::Display>>(name: N) -> Result<HeaderName> {
    name.try_into()
        .map_err(|error| Error::raise("ValueError", format!("invalid header name: {error}")))
}

fn header_value<V: TryInto<HeaderValue, Error: fmt::Display>>(value: V) -> Result<HeaderValue> {
    value
        .try_into()
        .map_err(|error| Error::raise("ValueError", format!("invalid header value: {error}")))
}
