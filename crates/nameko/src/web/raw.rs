//! A request with an unread body.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, request::Parts};
use hyper::{body::Body, upgrade::OnUpgrade};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Request, body_reader::BodyReader, error::Error, request_body::RequestBody, socket::Wire,
};

/// The request passed to a [`Handler`](super::Handler), with an unread body.
pub struct RawRequest {
    http: http::Request<RequestBody>,
    names: Arc<[String]>,
    values: Vec<String>,
    peer: SocketAddr,
    wire: Arc<Wire>,
}

impl RawRequest {
    pub(super) fn new(
        http: http::Request<RequestBody>,
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
        let (request, body) = self.split(max, timeout);
        request.set_body(body.read().await?);
        Ok(request)
    }

    /// Splits the request into one without its body, and the body.
    pub(super) fn split(self, max: usize, timeout: Duration) -> (Request, BodyReader) {
        let (head, body) = self.http.into_parts();
        let body = BodyReader::new(body, self.wire, max, timeout);
        let request = Request::unread(head, self.names, self.values, Some(self.peer));
        (request, body)
    }

    /// Returns the connection.
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Splits the request for incremental reading of at most `max` bytes of the body.
    pub(super) fn open(mut self, max: usize, timeout: Duration) -> (Parts, BodyReader, Upgrade) {
        let upgrade = Upgrade(hyper::upgrade::on(&mut self.http));
        let (head, body) = self.http.into_parts();
        (
            head,
            BodyReader::new(body, self.wire, max, timeout),
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
