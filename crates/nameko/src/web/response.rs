//! What a method answers with.

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

use super::{Json, error::ErrorResponse};
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
    /// What follows the status in its line, where it is not what the standards say.
    reason: Option<ReasonPhrase>,
    headers: HeaderMap,
    content: Content,
}

/// The body of a response.
#[derive(Default)]
pub(super) enum Content {
    #[default]
    Empty,
    Bytes(Bytes),
    /// In a lock that is never taken, since a reply must be shareable and a stream need not be.
    Stream(Mutex<ByteStream>),
}

/// A body that is made while it is sent.
pub(super) type ByteStream =
    Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn StdError + Send + Sync>>> + Send>>;

impl Response {
    /// `200 OK` with text.
    pub fn new(text: impl Into<String>) -> Self {
        Self::typed(TEXT, text.into())
    }

    /// A response without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            reason: None,
            headers: HeaderMap::new(),
            content: Content::Empty,
        }
    }

    /// `200 OK` with bytes of the content type `application/octet-stream`.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::typed(BYTES, bytes)
    }

    /// `200 OK` with a value as JSON.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        match serde_json::to_vec(value) {
            Ok(json) => Ok(Self::typed(JSON, json)),
            Err(error) => Err(Error::Raised(Fault::unserializable(&format!(
                "{}: {error}",
                std::any::type_name_of_val(value)
            )))),
        }
    }

    /// `200 OK` with a body that is made while it is sent, of the content type `application/octet-stream`. The next item is
    /// asked for once the client has taken most of what came before. An item that is an error cuts the connection, so
    /// that the client sees that the body is not whole. The worker has ended by the time the stream runs; when the client goes
    /// away, the stream is dropped.
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

    /// `303 See Other`: the client goes on with a `GET` of `location`.
    ///
    /// # Errors
    /// `location` cannot stand in a header.
    pub fn redirect(location: &str) -> Result<Self> {
        Self::empty(StatusCode::SEE_OTHER).header(header::LOCATION, location)
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header, in the place of others of its name.
    ///
    /// # Errors
    /// The name or the value cannot stand in a header.
    pub fn header<N, V>(mut self, name: N, value: V) -> Result<Self>
    where
        N: TryInto<HeaderName, Error: fmt::Display>,
        V: TryInto<HeaderValue, Error: fmt::Display>,
    {
        self.headers
            .insert(header_name(name)?, header_value(value)?);
        Ok(self)
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The headers. `Content-Length` and `Date` are added when the response is sent.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body, where it is no stream. For tests of methods that return a response.
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

    /// With another stream around the one that is the body, if one is.
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
        }
    }

    /// The answer to an error: `Error: {exc_type}: {value}`, as Nameko answers, unless the error says otherwise. Its status
    /// is its own, else 400 for what is the client's fault, which `expected` errors are, else 500.
    pub(super) fn of_fault(fault: &Fault, expected: bool) -> Self {
        let text = || Self::new(format!("Error: {}: {}\n", fault.exc_type, fault.value));
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

    /// One response to send, and one to show: what hears of the worker's end sees the status, the headers and a body that is
    /// no stream.
    pub(super) fn shown(&self) -> Self {
        Self {
            status: self.status,
            reason: self.reason.clone(),
            headers: self.headers.clone(),
            content: match &self.content {
                Content::Bytes(bytes) => Content::Bytes(bytes.clone()),
                Content::Empty | Content::Stream(_) => Content::Empty,
            },
        }
    }

    pub(super) fn set_reason(&mut self, reason: ReasonPhrase) {
        self.reason = Some(reason);
    }

    /// The head, and the body that belongs to it.
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

/// As text where it is text.
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

/// Nameko's `BadRequest` and its kinds.
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

/// What providers hear of: `to_json` is for entrypoints that reply in JSON, which the web server is not.
impl Reply for Response {
    fn to_json(&self) -> Result<Vec<u8>> {
        Err(Error::Raised(Fault::unserializable(&self.describe())))
    }

    fn describe(&self) -> String {
        // Asked of every response: `format!` would take longer.
        let reason = self.status.canonical_reason().unwrap_or_default();
        ["<Response [", self.status.as_str(), " ", reason, "]>"].concat()
    }

    /// What stands for the response where a test asks for the value: its body.
    fn as_serialize(&self) -> &dyn erased_serde::Serialize {
        &self.content
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync> {
        self
    }
}

/// What an `#[http]` method can return.
///
/// | returned | status | content type |
/// |---|---|---|
/// | `String`, `&'static str` | 200 | `text/plain; charset=utf-8` |
/// | [`Json<T>`] | 200 | `application/json` |
/// | [`Html`] | 200 | `text/html; charset=utf-8` |
/// | `Vec<u8>`, `Bytes` | 200 | `application/octet-stream` |
/// | `()` | 204 | |
/// | `StatusCode` | that | |
/// | `(status, T)`, `(status, headers, T)` | that | `T`'s, unless the headers say otherwise |
/// | [`Response`] | its own | its own |
///
/// A status is a [`StatusCode`] or a number. Headers are a `HeaderMap`, or a list of pairs: `[("Location", "/orders/1")]`.
#[diagnostic::on_unimplemented(
    message = "an `#[http]` method cannot answer with `{Self}`",
    label = "this is no HTTP response",
    note = "return text, `web::Json(value)`, `web::Html(text)`, bytes, `()`, `(status, body)`, `(status, headers, body)` or a `web::Response`"
)]
pub trait IntoResponse {
    /// The response.
    ///
    /// # Errors
    /// The value cannot be sent; the client gets a 500.
    fn into_response(self) -> Result<Response>;
}

/// Text of the content type `text/html; charset=utf-8`.
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
    message = "`{Self}` is no status to answer with",
    label = "the first of the tuple is no status",
    note = "a status is a `web::StatusCode` or a `u16`"
)]
pub trait IntoStatus {
    /// The status.
    ///
    /// # Errors
    /// No method can answer with it: the number is not from 200 to 999.
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
            .filter(|it| !it.is_informational())
            .ok_or_else(|| {
                Error::raise(
                    "ValueError",
                    format!("{self} is no status to answer with: it must be from 200 to 999"),
                )
            })
    }
}

/// The headers of a response: a `HeaderMap`, or a list of pairs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are no headers to answer with",
    label = "the second of the tuple is no list of headers",
    note = "headers are a `web::HeaderMap`, or pairs in an array or a `Vec`: `[(\"Location\", \"/orders/1\")]`"
)]
pub trait IntoHeaders {
    /// The headers.
    ///
    /// # Errors
    /// A name or a value cannot stand in a header.
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
        .map_err(|error| Error::raise("ValueError", format!("no name of a header: {error}")))
}

fn header_value<V: TryInto<HeaderValue, Error: fmt::Display>>(value: V) -> Result<HeaderValue> {
    value
        .try_into()
        .map_err(|error| Error::raise("ValueError", format!("no value of a header: {error}")))
}
