//! A complete HTTP request.

use std::{
    any::Any,
    fmt, mem,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Uri, Version, request::Parts};

use super::{body_reader::BodyReader, body_stream::BodyStream, error::Error, form};
use crate::sync::lock;

/// A complete HTTP request. Cheap to clone.
///
/// An argument of this type receives the whole request. Tests convert it from the `http` crate's
/// type:
///
/// ```
/// use nameko::web::{Bytes, Request, http};
///
/// let request = http::Request::post("/orders?dry=yes").body(Bytes::from("17"));
/// let request = Request::from(request.expect("a request"));
/// assert_eq!(request.query_param("dry"), Some("yes"));
/// assert_eq!(request.text().expect("text"), "17");
/// ```
#[derive(Clone)]
pub struct Request {
    inner: Arc<Inner>,
}

struct Inner {
    head: Parts,
    /// Unset before it is read, or if it is streamed.
    body: OnceLock<Bytes>,
    /// Whether an argument streams the body.
    is_streamed: AtomicBool,
    /// Whether the body was requested before it was read.
    body_requested: AtomicBool,
    unread: Mutex<Unread>,
    /// Arguments that were extracted before the body was read, by parameter.
    extracted: Mutex<Vec<(&'static str, Box<dyn Any + Send>)>>,
    /// Names and values of the path parameters.
    names: Arc<[String]>,
    values: Vec<String>,
    peer: Option<SocketAddr>,
    /// Parsed query, initialized on first use.
    query: OnceLock<Vec<(String, String)>>,
}

/// The body of a request that is not read yet.
#[derive(Default)]
enum Unread {
    #[default]
    None,
    /// Taken by the argument that streams it.
    Stream(BodyStream),
    /// Read by the worker.
    Whole(BodyReader),
}

impl Request {
    pub(super) fn new(
        head: Parts,
        body: Bytes,
        names: Arc<[String]>,
        values: Vec<String>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let request = Self::unread(head, names, values, peer);
        request.set_body(body);
        request
    }

    /// Creates a request whose body is read later.
    pub(super) fn unread(
        head: Parts,
        names: Arc<[String]>,
        values: Vec<String>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let inner = Inner {
            head,
            body: OnceLock::new(),
            is_streamed: AtomicBool::new(false),
            body_requested: AtomicBool::new(false),
            unread: Mutex::default(),
            extracted: Mutex::default(),
            names,
            values,
            peer,
            query: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn set_body(&self, body: Bytes) {
        // Set once, by the server.
        let _ = self.inner.body.set(body);
    }

    /// Sets the body to be streamed.
    pub(super) fn set_stream(&self, body: BodyStream) {
        self.inner.is_streamed.store(true, Ordering::Relaxed);
        *lock(&self.inner.unread) = Unread::Stream(body);
    }

    /// Sets the body to be read by [`read_body`](Self::read_body).
    pub(super) fn set_unread(&self, body: BodyReader) {
        *lock(&self.inner.unread) = Unread::Whole(body);
    }

    /// Reads the body, unless that was done or an argument streams it.
    pub(super) async fn read_body(&self) -> Result<(), Error> {
        let body = self.take_unread(|unread| match unread {
            Unread::Whole(body) => Ok(body),
            other => Err(other),
        });
        if let Some(body) = body {
            self.set_body(body.read().await?);
        }
        Ok(())
    }

    /// Takes the unread body if `select` returns it.
    fn take_unread<T>(&self, select: impl FnOnce(Unread) -> Result<T, Unread>) -> Option<T> {
        let mut unread = lock(&self.inner.unread);
        select(mem::take(&mut *unread))
            .map_err(|other| *unread = other)
            .ok()
    }

    /// Returns `true` if the body was requested before it was read, and resets the answer.
    pub(super) fn body_was_requested(&self) -> bool {
        let requested = &self.inner.body_requested;
        requested.load(Ordering::Relaxed) && requested.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` if an argument streams the body.
    pub(super) fn is_streamed(&self) -> bool {
        self.inner.is_streamed.load(Ordering::Relaxed)
    }

    /// Keeps an argument that was extracted before the body was read.
    pub(super) fn keep_extracted(&self, name: &'static str, value: impl Any + Send) {
        lock(&self.inner.extracted).push((name, Box::new(value)));
    }

    /// Returns `true` if the argument was extracted before the body was read.
    pub(super) fn has_extracted(&self, name: &str) -> bool {
        lock(&self.inner.extracted)
            .iter()
            .any(|(known, _)| *known == name)
    }

    /// Returns an argument that was extracted before the body was read.
    pub(super) fn take_extracted<T: Any>(&self, name: &'static str) -> Option<T> {
        let mut extracted = lock(&self.inner.extracted);
        let at = extracted
            .iter()
            .position(|(known, value)| *known == name && value.is::<T>())?;
        let (_, value) = extracted.swap_remove(at);
        value.downcast().ok().map(|value| *value)
    }

    /// Returns the request with path parameters.
    #[cfg(feature = "testing")]
    pub(super) fn with_path_params(&self, names: Arc<[String]>, values: Vec<String>) -> Self {
        let Inner { head, peer, .. } = &*self.inner;
        Self::new(head.clone(), self.body().clone(), names, values, *peer)
    }

    /// Returns the HTTP method.
    pub fn method(&self) -> &Method {
        &self.inner.head.method
    }

    /// Returns the path and the query, percent-encoded.
    pub fn uri(&self) -> &Uri {
        &self.inner.head.uri
    }

    /// Returns the HTTP version of the request.
    pub fn version(&self) -> Version {
        self.inner.head.version
    }

    /// Returns the headers, with lower-case names.
    pub fn headers(&self) -> &HeaderMap {
        &self.inner.head.headers
    }

    /// Returns the value of a header if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Returns the remote address of the connection: the client's or a proxy's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.inner.peer
    }

    /// Returns the extensions of the request, which layers add.
    pub fn extensions(&self) -> &Extensions {
        &self.inner.head.extensions
    }

    /// Returns the body; empty if an argument streams it.
    ///
    /// Arguments are first extracted before the body is read. One that requests the body is
    /// extracted again afterwards.
    pub fn body(&self) -> &Bytes {
        static UNREAD: Bytes = Bytes::new();
        self.inner.body.get().unwrap_or_else(|| {
            self.inner.body_requested.store(true, Ordering::Relaxed);
            &UNREAD
        })
    }

    /// Takes the body as a stream, for the [`FromRequest`](super::FromRequest) of a type with
    /// `STREAMS_BODY`. `None` if it was taken before.
    pub fn take_body_stream(&self) -> Option<BodyStream> {
        match self.inner.body.get() {
            // A request of a test, or without a body.
            Some(body) => Some(BodyStream::from(body.clone())),
            None => self.take_unread(|unread| match unread {
                Unread::Stream(body) => Ok(body),
                other => Err(other),
            }),
        }
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// `400 Bad Request` if it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(self.body())
            .map_err(|error| Error::bad_request(format!("the body is not UTF-8: {error}")))
    }

    /// Returns a decoded path parameter.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        let index = self.inner.names.iter().position(|known| known == name)?;
        self.inner.values.get(index).map(String::as_str)
    }

    /// Returns the decoded path parameters.
    pub fn path_params(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.inner.names.iter().map(String::as_str);
        names.zip(self.inner.values.iter().map(String::as_str))
    }

    /// Returns a decoded query parameter, the first of its name.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        self.query_pairs()
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the decoded query parameters in order.
    pub fn query_pairs(&self) -> &[(String, String)] {
        self.inner
            .query
            .get_or_init(|| form::pairs(self.uri().query().unwrap_or_default()))
    }
}

impl From<http::Request<Bytes>> for Request {
    fn from(request: http::Request<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        Self::new(head, body, Arc::new([]), Vec::new(), None)
    }
}

impl fmt::Debug for Request {
    /// Omits headers and body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Request [{} {}]>", self.method(), self.uri().path())
    }
}
