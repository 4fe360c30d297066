//! Request bodies that are streamed to the method.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep};

use super::{
    body_reader::BodyReader, error::Error, extract::FromRequest, request::Request,
    settings::PartLimits,
};
use crate::error::Result;

/// The body of a request as a stream of chunks, for bodies that do not fit into memory.
///
/// The method runs while the body arrives. The total size is limited by `max_body` of `#[http]`, or
/// `WEB_SERVER_MAX_BODY`; each chunk must arrive within `WEB_SERVER_BODY_TIMEOUT`. The method
/// itself is limited by `timeout` of `#[http]`, or `WEB_SERVER_TIMEOUT`. If the method returns
/// before it has read the body, the response closes the connection.
///
/// ```
/// use nameko::{prelude::*, web::{self, BodyStream}};
///
/// #[derive(Dependencies)]
/// struct Files;
///
/// #[service("files")]
/// impl Files {
///     #[http(PUT, "/files/{name}", max_body = 1 << 30, timeout = 600)]
///     async fn put(&self, name: String, mut body: BodyStream) -> Result<String, web::Error> {
///         let mut size = 0;
///         while let Some(chunk) = body.next().await? {
///             size += chunk.len();
///         }
///         Ok(format!("{name}: {size} bytes"))
///     }
/// }
/// ```
pub struct BodyStream {
    source: Source,
    #[cfg_attr(
        not(feature = "multipart"),
        expect(dead_code, reason = "for multipart bodies")
    )]
    parts: PartLimits,
}

enum Source {
    /// A body that was read before.
    Bytes(Bytes),
    Reader {
        reader: BodyReader,
        /// Deadline of the next chunk. `None` before the first poll.
        deadline: Option<Pin<Box<Sleep>>>,
    },
    /// After an error.
    Failed(Error),
}

impl BodyStream {
    pub(super) fn of(reader: BodyReader, parts: PartLimits) -> Self {
        Self {
            source: Source::Reader {
                reader,
                deadline: None,
            },
            parts,
        }
    }

    /// Returns the limits of a multipart body.
    #[cfg(feature = "multipart")]
    pub(super) fn part_limits(&self) -> PartLimits {
        self.parts
    }

    /// Returns the next chunk; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `413 Content Too Large`, `408 Request Timeout`, or `400 Bad Request` if the client
    /// disconnects before the end. Later calls return the same error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let error = match &mut self.source {
            Source::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(Ok(None)),
            Source::Bytes(bytes) => return Poll::Ready(Ok(Some(std::mem::take(bytes)))),
            Source::Failed(error) => return Poll::Ready(Err(error.clone())),
            Source::Reader { reader, deadline } => match reader.poll_next(cx) {
                Poll::Ready(Ok(chunk)) => {
                    *deadline = None;
                    return Poll::Ready(Ok(chunk));
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    let limit = reader.timeout();
                    let deadline = deadline.get_or_insert_with(|| {
                        // Caps limits that would overflow.
                        let far = Instant::now() + std::time::Duration::from_secs(86_400 * 365);
                        let deadline = Instant::now().checked_add(limit).unwrap_or(far);
                        Box::pin(tokio::time::sleep_until(deadline.min(far)))
                    });
                    if deadline.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    reader.too_slow()
                }
            },
        };
        self.source = Source::Failed(error.clone());
        Poll::Ready(Err(error))
    }
}

/// The body of a request in a test.
impl From<Bytes> for BodyStream {
    fn from(body: Bytes) -> Self {
        Self {
            source: Source::Bytes(body),
            parts: PartLimits::default(),
        }
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &self.source {
            Source::Failed(_) => Poll::Ready(None),
            _ => self.poll(cx).map(Result::transpose),
        }
    }
}

impl FromRequest for BodyStream {
    const STREAMS_BODY: bool = true;
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        request.take_body_stream().ok_or_else(|| taken(name))
    }
}

/// Creates the error of a second parameter that streams the body.
pub(super) fn taken(name: &str) -> crate::Error {
    crate::Error::Declaration(format!(
        "the parameter `{name}` streams the body, which another parameter has taken"
    ))
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream").finish_non_exhaustive()
    }
}
