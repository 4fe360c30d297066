//! An HTTP request, read whole.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, request::Parts};

use super::{error::Error, form};

/// An HTTP request. Cheap to clone; all clones are one request.
///
/// Methods that ask for it get all of it. For tests it is made from the `http` crate's:
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
    /// The names of the path's parameters, and their values.
    names: Arc<[String]>,
    values: Vec<String>,
    peer: Option<SocketAddr>,
    /// The query's pairs, read when first asked for.
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

    /// The same on a path with parameters.
    pub(super) fn with_path_params(&self, names: Arc<[String]>, values: Vec<String>) -> Self {
        let Inner {
            head, body, peer, ..
        } = &*self.inner;
        Self::new(head.clone(), body.clone(), names, values, *peer)
    }

    /// `GET`, `POST`, ...
    pub fn method(&self) -> &Method {
        &self.inner.head.method
    }

    /// The path and the query as they came: percent-encoded.
    pub fn uri(&self) -> &Uri {
        &self.inner.head.uri
    }

    /// The version of HTTP that the client speaks.
    pub fn version(&self) -> Version {
        self.inner.head.version
    }

    /// The headers. Names are lower case.
    pub fn headers(&self) -> &HeaderMap {
        &self.inner.head.headers
    }

    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The address that the connection came from: the client's, or a proxy's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.inner.peer
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.inner.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// `400 Bad Request`: it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.inner.body)
            .map_err(|error| Error::bad_request(format!("the body is not UTF-8: {error}")))
    }

    /// A parameter of the path, decoded.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        let index = self.inner.names.iter().position(|it| it == name)?;
        self.inner.values.get(index).map(String::as_str)
    }

    /// The path's parameters, decoded.
    pub fn path_params(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.inner.names.iter().map(String::as_str);
        names.zip(self.inner.values.iter().map(String::as_str))
    }

    /// A parameter of the query, decoded; the first of its name.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        self.query_pairs()
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The parameters of the query, decoded, in order.
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
    /// Without headers and body, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Request [{} {}]>", self.method(), self.uri().path())
    }
}
