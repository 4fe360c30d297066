//! The body of a request, read incrementally.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::LengthLimitError;
use hyper::body::Body;

use super::{
    error::Error,
    request_body::{BoxError, RequestBody},
    socket::Wire,
};
use crate::error_chain::chain;

/// The body of a request, read incrementally.
pub struct BodyReader {
    body: RequestBody,
    wire: Arc<Wire>,
    /// Maximum size in bytes.
    max: usize,
    /// Number of bytes read.
    read: usize,
    timeout: Duration,
}

impl BodyReader {
    pub(super) fn new(body: RequestBody, wire: Arc<Wire>, max: usize, timeout: Duration) -> Self {
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
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for the next chunk.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let left = self.max.saturating_sub(self.read);
        if self.body.size_hint().lower() > left as u64 {
            return Poll::Ready(Err(self.too_large()));
        }
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Poll::Ready(Err(unreadable(error))),
            };
            let Ok(bytes) = frame.into_data() else {
                // A trailer frame.
                continue;
            };
            if bytes.len() > left {
                return Poll::Ready(Err(self.too_large()));
            }
            self.read += bytes.len();
            return Poll::Ready(Ok(Some(bytes)));
        }
        self.wire.set_unread(false);
        Poll::Ready(Ok(None))
    }

    /// Reads the body within the [`timeout`](Self::timeout).
    ///
    /// # Errors
    /// Those of [`next`](Self::next), and `408 Request Timeout`.
    pub(super) async fn read(mut self) -> Result<Bytes, Error> {
        tokio::time::timeout(self.timeout, self.rest())
            .await
            .unwrap_or_else(|_| Err(self.too_slow()))
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
        too_large(format!("the body is larger than {} bytes", self.max))
    }

    /// Creates the error for a client that exceeds the [`timeout`](Self::timeout).
    pub fn too_slow(&self) -> Error {
        Error::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not received within {:?}", self.timeout),
        )
    }
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

/// Creates a `413 Content Too Large`.
pub(super) fn too_large(text: String) -> Error {
    Error::new(StatusCode::PAYLOAD_TOO_LARGE, text).exc_type("ContentTooLarge")
}

/// Converts the error of the connection, or of a layer around the body.
fn unreadable(error: BoxError) -> Error {
    if chain(&*error).any(|error| error.is::<LengthLimitError>()) {
        return too_large("the body is larger than a layer permits".to_owned());
    }
    Error::among_causes(&*error)
        .unwrap_or_else(|| Error::bad_request(format!("cannot read the body: {error}")))
}
