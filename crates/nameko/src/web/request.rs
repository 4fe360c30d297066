//! A complete HTTP request.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, request::Parts};

use super::{error::Error, form};

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
    body: Bytes,
    /// Names and values of the path parameters.
    names: Arc<[String]>,
    values: Vec<String>,
    peer: Option<SocketAddr>,
    /// Parsed query, initialized on first use.
    query: OnceLock<Vec<(String, String)>>,
}

impl Request {
    pub(super) fn new(
        head: Parts,
        body: Bytes,
        names: Arc<[String]>,
        values: Vec<String>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let inner = Inner {
            head,
            body,
            names,
            values,
            peer,
            query: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns the request with path parameters.
    #[cfg(feature = "testing")]
    pub(super) fn with_path_params(&self, names: Arc<[String]>, values: Vec<String>) -> Self {
        let Inner {
            head, body, peer, ..
        } = &*self.inner;
        Self::new(head.clone(), body.clone(), names, values, *peer)
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

    /// Returns the body.
    pub fn body(&self) -> &Bytes {
        &self.inner.body
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// `400 Bad Request` if it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.inner.body)
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
