//! A request with an unread body.

use std::{fmt, future::poll_fn, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request::Parts};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Request, error::Error, socket::Wire};

/// The request passed to a [`Handler`](super::Handler), with an unread body.
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

    /// Returns the HTTP method.
    pub fn method(&self) -> &Method {
        self.http.method()
    }

    /// Returns the path and the query, percent-encoded.
    pub fn uri(&self) -> &Uri {
        self.http.uri()
    }

    /// Returns the headers, with lower-case names.
    pub fn headers(&self) -> &HeaderMap {
        self.http.headers()
    }

    /// Returns the HTTP version of the request.
    pub fn version(&self) -> Version {
        self.http.version()
    }

    /// Returns `true` if the request has a body.
    pub fn has_body(&self) -> bool {
        !self.http.body().is_end_stream()
    }

    /// Returns the remote address of the connection.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads the body, at most `max` bytes within `timeout`.
    ///
    /// # Errors
    /// `413 Content Too Large`, `408 Request Timeout`, or `400 Bad Request` if the client
    /// disconnects. The response to the error closes the connection.
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

    /// Splits the request for incremental reading of at most `max` bytes of the body.
    pub(super) fn open(mut self, max: usize, timeout: Duration) -> (Parts, RequestBody, Upgrade) {
        let upgrade = Upgrade(hyper::upgrade::on(&mut self.http));
        let (head, body) = self.http.into_parts();
        (
            head,
            RequestBody::new(body, self.wire, max, timeout),
            upgrade,
        )
    }

    /// Returns the request without its body, and the connection for use after the response
    /// `101 Switching Protocols`.
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

/// The body of a request, read incrementally.
pub struct RequestBody {
    body: Incoming,
    wire: Arc<Wire>,
    /// Maximum size in bytes.
    max: usize,
    /// Number of bytes read.
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

    /// Returns `true` if the whole body was read.
    pub fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Returns the time limit for receiving the body.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reads the next chunk; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `413 Content Too Large`, or `400 Bad Request` if the client disconnects. The response to the
    /// error closes the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let left = self.max.saturating_sub(self.read);
        if self.body.size_hint().lower() > left as u64 {
            return Err(self.too_large());
        }
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
            let frame = frame
                .map_err(|error| Error::bad_request(format!("cannot read the body: {error}")))?;
            let Ok(bytes) = frame.into_data() else {
                // A trailer frame.
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

    /// Reads the rest of the body.
    async fn rest(&mut self) -> Result<Bytes, Error> {
        // Most bodies are a single chunk, which needs no copy.
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

    /// Creates the error for a client that exceeds the [`timeout`](Self::timeout).
    pub fn too_slow(&self) -> Error {
        Error::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not received within {:?}", self.timeout),
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

/// A connection that is being upgraded to another protocol.
#[derive(Debug)]
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Waits for the response `101 Switching Protocols` to be sent, and returns the connection.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn connection(
        self,
    ) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        let upgraded = self.0.await.map_err(std::io::Error::other)?;
        Ok(hyper_util::rt::TokioIo::new(upgraded))
    }
}
