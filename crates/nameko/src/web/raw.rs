//! A request of which only the head was read.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
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
        let bytes = if body.is_end_stream() {
            Ok(Bytes::new())
        } else {
            match tokio::time::timeout(timeout, read(body, max)).await {
                Ok(bytes) => bytes,
                Err(_) => Err(Error::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("the body did not come within {timeout:?}"),
                )),
            }
        };
        let bytes = bytes?;
        self.wire.set_unread(false);
        Ok(Request::new(
            head,
            bytes,
            self.names,
            self.values,
            Some(self.peer),
        ))
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

async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Error> {
    let too_large = || {
        Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {max} bytes"),
        )
        .exc_type("ContentTooLarge")
    };
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame
            .map_err(|error| Error::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(bytes) = frame.into_data() else {
            // Trailers.
            continue;
        };
        if first.len() + all.len() + bytes.len() > max {
            return Err(too_large());
        }
        if first.is_empty() && all.is_empty() {
            // Most bodies are one piece, which needs no copy.
            first = bytes;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
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
