//! The body of a response being sent.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    request_body::{AnyBody, BoxError, own_or_erased},
    response::{ByteStream, Content},
    socket::Wire,
};

/// The body of a response, as [layers](super::HttpLayer) see it: a stream of frames.
#[derive(Default)]
pub struct ResponseBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Bytes(Option<Bytes>),
    Stream(Streamed),
    /// Wrapped by a layer.
    Any(AnyBody),
}

/// A streamed body of a method.
struct Streamed {
    stream: ByteStream,
    wire: Arc<Wire>,
    /// The error of the stream, returned when all that came before is sent.
    failed: Option<BoxError>,
}

/// The error of a connection closed by the client.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by the client")]
struct Gone;

impl ResponseBody {
    /// Wraps a body, for layers that replace it.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        own_or_erased(body, |body| Self(Kind::Any(body)))
    }

    /// Returns a body that is not a stream.
    pub(super) fn of_bytes(content: Content) -> Self {
        match content {
            Content::Bytes(bytes) => Self::from(bytes),
            Content::Empty | Content::Stream(_) => Self::default(),
        }
    }

    /// Returns the body of a method's response, sent over `wire`.
    pub(super) fn of(content: Content, wire: &Arc<Wire>) -> Self {
        Self(match content {
            Content::Empty => Kind::Empty,
            Content::Bytes(bytes) => Kind::Bytes(Some(bytes)),
            Content::Stream(stream) => Kind::Stream(Streamed {
                stream: stream.into_inner().unwrap_or_else(PoisonError::into_inner),
                wire: wire.clone(),
                failed: None,
            }),
        })
    }
}

impl<T: Into<Bytes>> From<T> for ResponseBody {
    fn from(bytes: T) -> Self {
        Self(Kind::Bytes(Some(bytes.into())))
    }
}

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.failed.is_none() {
            match self.stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!("a streamed response failed, closing the connection: {error}");
                    self.failed = Some(error);
                    self.wire.expect_flush();
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.wire.poll_gone(cx) => {
                    return Poll::Ready(Some(Err(Gone.into())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        // hyper drops the connection at once on an error, with all that it has not yet written.
        // Pending makes it write.
        match self.wire.poll_flushed(cx) {
            Poll::Ready(()) => Poll::Ready(self.failed.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(bytes.take().map(|data| Ok(Frame::data(data)))),
            Kind::Stream(streamed) => streamed.poll_frame(cx),
            Kind::Any(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Bytes(bytes) => bytes.is_none(),
            Kind::Stream(_) => false,
            Kind::Any(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |data| data.len() as u64))
            }
            Kind::Stream(_) => SizeHint::default(),
            Kind::Any(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
