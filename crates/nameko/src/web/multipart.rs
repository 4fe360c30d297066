//! Multipart uploads, `multipart/form-data`.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, header};
use multer::{Constraints, SizeLimit, parse_boundary};

use super::{
    body_reader::too_large,
    body_stream::{BodyStream, taken},
    error::Error,
    extract::{FromRequest, content_type},
    request::Request,
    settings::PartLimits,
};
use crate::error::Result;

/// Maximum number of bytes that are buffered before a part begins: its headers.
const MAX_PART_HEAD_BYTES: usize = 64 << 10;

/// The parts of a `multipart/form-data` body, such as an HTML form with files. Needs the feature
/// `multipart`.
///
/// The method runs while the parts arrive, like with a [`BodyStream`]. A part is skipped if it is
/// not read. The number of parts is limited by `WEB_SERVER_MAX_PARTS`, the size of each by
/// `WEB_SERVER_MAX_PART_SIZE`, and that of all as for any body.
///
/// ```
/// use nameko::{prelude::*, web::{self, Multipart}};
///
/// #[derive(Dependencies)]
/// struct Photos;
///
/// #[service("photos")]
/// impl Photos {
///     #[http(POST, "/photos", max_body = 100 << 20)]
///     async fn add(&self, mut form: Multipart) -> Result<String, web::Error> {
///         let mut size = 0;
///         while let Some(mut part) = form.next_part().await? {
///             if part.name() == Some("photo") {
///                 while let Some(chunk) = part.chunk().await? {
///                     size += chunk.len();
///                 }
///             }
///         }
///         Ok(format!("{size} bytes"))
///     }
/// }
/// ```
pub struct Multipart {
    parts: multer::Multipart<'static>,
    current: Option<multer::Field<'static>>,
    limits: PartLimits,
    /// Number of parts so far.
    count: usize,
    /// Bytes received since the last progress.
    buffered: Arc<AtomicUsize>,
}

/// A part of a [`Multipart`].
pub struct Part<'a> {
    field: &'a mut multer::Field<'static>,
    limits: PartLimits,
    buffered: &'a AtomicUsize,
}

impl Multipart {
    fn new(body: BodyStream, boundary: String) -> Self {
        let limits = body.part_limits();
        let buffered = Arc::new(AtomicUsize::new(0));
        let stream = Paced {
            body,
            buffered: buffered.clone(),
            yields: false,
        };
        let size = SizeLimit::new().per_field(limits.max_size);
        Self {
            parts: multer::Multipart::with_constraints(
                stream,
                boundary,
                Constraints::new().size_limit(size),
            ),
            current: None,
            limits,
            count: 0,
            buffered,
        }
    }

    /// Returns the next part; `None` after the last one.
    ///
    /// # Errors
    /// `413 Content Too Large` if there are too many parts, or one is too large. `400 Bad Request`
    /// if the body is malformed or incomplete. Those of [`BodyStream::next`].
    pub async fn next_part(&mut self) -> Result<Option<Part<'_>>, Error> {
        if let Some(field) = self.current.take() {
            self.skip(field).await?;
        }
        let next = self.parts.next_field().await;
        self.buffered.store(0, Ordering::Relaxed);
        let Some(field) = next.map_err(|error| refusal(error, self.limits))? else {
            return Ok(None);
        };
        self.count += 1;
        if self.count > self.limits.max_parts {
            return Err(too_large(format!(
                "the body has more than {} parts",
                self.limits.max_parts
            )));
        }
        Ok(Some(Part {
            field: self.current.insert(field),
            limits: self.limits,
            buffered: &self.buffered,
        }))
    }

    async fn skip(&self, mut field: multer::Field<'static>) -> Result<(), Error> {
        let mut rest = Part {
            field: &mut field,
            limits: self.limits,
            buffered: &self.buffered,
        };
        while rest.chunk().await?.is_some() {}
        Ok(())
    }
}

impl Part<'_> {
    /// Returns the name of the part: that of the form's field.
    pub fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// Returns the name of the file, as sent by the client. Do not use it as a path.
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// Returns the content type.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.headers().get(header::CONTENT_TYPE)?;
        value.to_str().ok()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        self.field.headers()
    }

    /// Returns the next chunk of the content; `None` at the end.
    ///
    /// # Errors
    /// Those of [`Multipart::next_part`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.field.chunk().await;
        self.buffered.store(0, Ordering::Relaxed);
        chunk.map_err(|error| refusal(error, self.limits))
    }

    /// Reads the rest of the content.
    ///
    /// # Errors
    /// Those of [`Multipart::next_part`].
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Reads the rest of the content as text.
    ///
    /// # Errors
    /// Those of [`Multipart::next_part`], and `400 Bad Request` if it is not UTF-8.
    pub async fn text(self) -> Result<String, Error> {
        let name = self.name().unwrap_or_default().to_owned();
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into())
            .map_err(|error| Error::bad_request(format!("the part `{name}` is not UTF-8: {error}")))
    }
}

impl FromRequest for Multipart {
    const STREAMS_BODY: bool = true;
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        const EXPECTED: &str = "multipart/form-data";
        content_type(request, name, EXPECTED, |given| given == EXPECTED)?;
        let given = request.header("content-type").unwrap_or_default();
        let boundary = parse_boundary(given).map_err(|_| {
            let text = format!("`{name}` is missing: the header Content-Type has no boundary");
            Error::bad_request(text)
        })?;
        let body = request.take_body_stream().ok_or_else(|| taken(name))?;
        Ok(Self::new(body, boundary))
    }
}

/// Converts an error of the parser.
fn refusal(error: multer::Error, limits: PartLimits) -> Error {
    match error {
        multer::Error::StreamReadFailed(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::bad_request(format!("cannot read the body: {error}")),
        },
        multer::Error::FieldSizeExceeded { field_name, .. } => {
            let name = field_name.unwrap_or_default();
            let max = limits.max_size;
            too_large(format!("the part `{name}` is larger than {max} bytes"))
        }
        error => Error::bad_request(format!("the body is not valid multipart: {error}")),
    }
}

/// A body that is parsed chunk by chunk: the parser would otherwise buffer all that has arrived.
struct Paced {
    body: BodyStream,
    buffered: Arc<AtomicUsize>,
    /// Whether the next poll is pending.
    yields: bool,
}

impl Stream for Paced {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.buffered.load(Ordering::Relaxed) > MAX_PART_HEAD_BYTES {
            let text = format!("the headers of a part exceed {MAX_PART_HEAD_BYTES} bytes");
            return Poll::Ready(Some(Err(Error::bad_request(text))));
        }
        let next = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.buffered.fetch_add(chunk.len(), Ordering::Relaxed);
            self.yields = true;
        }
        next
    }
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multipart")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
