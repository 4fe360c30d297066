//! The body of a request, as received or as wrapped by a layer.

use std::{
    any::Any,
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// An error of a layer, or of a body that a layer has wrapped.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A body of any type.
pub(super) type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// The body of a request, as [layers](super::HttpLayer) see it: a stream of frames.
#[derive(Default)]
pub struct RequestBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Incoming(Incoming),
    /// Wrapped by a layer.
    Any(AnyBody),
}

impl RequestBody {
    /// Wraps a body, for layers that replace it.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        own_or_erased(body, |body| Self(Kind::Any(body)))
    }
}

/// Returns a body that is an `Own` already, since no layer has wrapped it, as it is. Erases the
/// type of any other, for `wrap`.
pub(super) fn own_or_erased<Own, B>(body: B, wrap: impl FnOnce(AnyBody) -> Own) -> Own
where
    Own: Default + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut body = Some(body);
    if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Own>>() {
        return own.take().unwrap_or_default();
    }
    body.map_or_else(Own::default, |body| {
        wrap(Box::pin(BodyExt::map_err(body, Into::into)))
    })
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Kind::Incoming(body))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Incoming(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Kind::Any(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Any(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Any(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
