//! A request of which only the head was read.

use std::{fmt, future::poll_fn, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request::Parts};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Request, error::Error, socket::Wire};

/// A request as its [`Handler`](super::Handler) gets it: the head was read, the body was not.
pub struct RawRequest {
    http: http::Request<Incoming>,
    names: Arc<[String]>,
    values: Vec<String>,
    peer: SocketAddr,
    wire: Arc<Wire>,
}

impl RawRequest {
    pub(super) fn new(
        http: http::Request<Incoming>,
        names: Arc<[String]>,
        values: Vec<String>,
        peer: SocketAddr,
        wire: Arc<Wire>,
    ) -> Self {
        Self {
            http,
            names,
            values,
            peer,
            wire,
        }
    }

    /// `GET`, `POST`, ...
    pub fn method(&self) -> &Method {
        self.http.method()
    }

    /// The path and the query as they came: percent-encoded.
    pub fn uri(&self) -> &Uri {
        self.http.uri()
    }

    /// The headers. Names are lower case.
    pub fn headers(&self) -> &HeaderMap {
        self.http.headers()
    }

    /// The version of HTTP that the client speaks.
    pub fn version(&self) -> Version {
        self.http.version()
    }

    /// Whether a body comes with it.
    pub fn has_body(&self) -> bool {
        !self.http.body().is_end_stream()
    }

    /// The address that the connection came from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads the body: at most `max` bytes, which must have come within `timeout`.
    ///
    /// # Errors
    /// `413 Content Too Large`, `408 Request Timeout`, or `400 Bad Request` when the client broke off. The answer to it
    /// closes the connection.
    pub async fn read(self, max: usize, timeout: Duration) -> Result<Request, Error> {
        let (head, body) = self.http.into_parts();
        let mut body = RequestBody::new(body, self.wire, max, timeout);
        let bytes = tokio::time::timeout(timeout, body.rest())
            .await
            .unwrap_or_else(|_| Err(body.too_slow()))?;
        Ok(Request::new(
            head,
            bytes,
            self.names,
            self.values,
            Some(self.peer),
        ))
    }

    /// Takes it apart, for those who read the body as it comes, at most `max` bytes of it.
    pub(super) fn open(mut self, max: usize, timeout: Duration) -> (Parts, RequestBody, Upgrade) {
        let upgrade = Upgrade(hyper::upgrade::on(&mut self.http));
        let (head, body) = self.http.into_parts();
        (
            head,
            RequestBody::new(body, self.wire, max, timeout),
            upgrade,
        )
    }

    /// The request without its body, and the connection once it was answered with `101 Switching Protocols`: what is
    /// spoken then is the caller's business.
    pub fn into_upgrade(mut self) -> (Request, Upgrade) {
        let upgrade = Upgrade(hyper::upgrade::on(&mut self.http));
        let (head, _) = self.http.into_parts();
        let request = Request::new(head, Bytes::new(), self.names, self.values, Some(self.peer));
        (request, upgrade)
    }
}

impl fmt::Debug for RawRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<RawRequest [{} {}]>", self.method(), self.uri().path())
    }
}

/// The body of a request, read as it comes.
pub struct RequestBody {
    body: Incoming,
    wire: Arc<Wire>,
    /// The most bytes that it may have.
    max: usize,
    /// How many came.
    read: usize,
    timeout: Duration,
}

impl RequestBody {
    fn new(body: Incoming, wire: Arc<Wire>, max: usize, timeout: Duration) -> Self {
        if body.is_end_stream() {
            wire.set_unread(false);
        }
        Self {
            body,
            wire,
            max,
            read: 0,
            timeout,
        }
    }

    /// Whether all of it was read.
    pub fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// How long a client may take for it, or for a part of it that is worth waiting for.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The next piece; none when all of it was read. Dropped unfinished, it has read nothing.
    ///
    /// # Errors
    /// `413 Content Too Large`, or `400 Bad Request` when the client broke off. The answer to it closes the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let left = self.max.saturating_sub(self.read);
        if self.body.size_hint().lower() > left as u64 {
            return Err(self.too_large());
        }
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| {
                Error::bad_request(format!("the body could not be read: {error}"))
            })?;
            let Ok(bytes) = frame.into_data() else {
                // Trailers.
                continue;
            };
            if bytes.len() > left {
                return Err(self.too_large());
            }
            self.read += bytes.len();
            return Ok(Some(bytes));
        }
        self.wire.set_unread(false);
        Ok(None)
    }

    /// All of it that is still to come.
    async fn rest(&mut self) -> Result<Bytes, Error> {
        // Most bodies are one piece, which needs no copy.
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    fn too_large(&self) -> Error {
        Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} bytes", self.max),
        )
        .exc_type("ContentTooLarge")
    }

    /// What a client is told that takes longer than [`timeout`](Self::timeout).
    pub fn too_slow(&self) -> Error {
        Error::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {:?}", self.timeout),
        )
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

/// A connection that is about to speak another protocol.
#[derive(Debug)]
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// The connection, once the answer `101 Switching Protocols` was sent.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn connection(
        self,
    ) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        let upgraded = self.0.await.map_err(std::io::Error::other)?;
        Ok(hyper_util::rt::TokioIo::new(upgraded))
    }
}
