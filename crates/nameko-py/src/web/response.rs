//! The response of a WSGI application.

use bytes::Bytes;
use futures_util::stream;
use nameko::web::embed::{self, ReasonPhrase};
use nameko::web::http::header;
use nameko::web::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use tokio::sync::mpsc;

/// The size from which on a body is sent from Python's memory instead of a copy.
const MIN_SHARED_BODY_BYTES: usize = 32 << 10;
/// The number of chunks of a streamed response that are buffered.
const MAX_QUEUED_CHUNKS: usize = 8;

/// A part of a streamed response.
pub(super) enum Chunk {
    Data(Bytes),
    /// The end of the body. A stream that is dropped without it is cut off.
    End,
}

/// The status line and the headers of a response.
pub(super) struct Head {
    status: StatusCode,
    /// The reason phrase, if it is not the standard one.
    reason: Option<ReasonPhrase>,
    headers: HeaderMap,
}

impl Head {
    /// # Errors
    ///
    /// ValueError if the status or a header is not valid in a response.
    pub(super) fn new(line: &str, headers: Vec<(String, String)>) -> PyResult<Self> {
        let (status, reason) = status(line).ok_or_else(|| {
            PyValueError::new_err(format!("{line:?} is not a valid response status"))
        })?;
        let mut map = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            let wrong = || {
                PyValueError::new_err(format!(
                    "the header {name:?} with the value {value:?} cannot be sent"
                ))
            };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            map.append(key, header_value(&value).ok_or_else(wrong)?);
        }
        Ok(Self {
            status,
            reason,
            headers: map,
        })
    }

    /// The head of a text whose headers mean the same to werkzeug: texts that it sends unchanged.
    /// Without a `Content-Type` among them, `content_type` is added. None if they are not plain.
    pub(super) fn plain(
        line: &str,
        headers: &Bound<'_, PyAny>,
        content_type: &str,
        length: usize,
    ) -> Option<Self> {
        let (status, reason) = status(line)?;
        let mut map = HeaderMap::with_capacity(4);
        if let Ok(headers) = headers.cast_exact::<PyDict>() {
            for (name, value) in headers {
                append_plain(&mut map, &name, &value)?;
            }
        } else if let Ok(headers) = headers.cast_exact::<PyList>() {
            for pair in headers {
                let pair = pair.cast_into_exact::<PyTuple>().ok()?;
                if pair.len() != 2 {
                    return None;
                }
                append_plain(&mut map, &pair.get_item(0).ok()?, &pair.get_item(1).ok()?)?;
            }
        } else if !headers.is_none() {
            return None;
        }
        if !map.contains_key(header::CONTENT_TYPE) {
            map.append(header::CONTENT_TYPE, header_value(content_type)?);
        }
        map.append(header::CONTENT_LENGTH, HeaderValue::from(length));
        Some(Self {
            status,
            reason,
            headers: map,
        })
    }

    /// Builds a response with a body. The response to `HEAD` has only its length.
    pub(super) fn with_body(mut self, body: Bytes, to_head: bool) -> Response {
        let response = if body.is_empty() || to_head {
            if !body.is_empty() {
                self.headers
                    .entry(header::CONTENT_LENGTH)
                    .or_insert_with(|| HeaderValue::from(body.len()));
            }
            Response::empty(StatusCode::OK)
        } else {
            Response::bytes(body)
        };
        self.apply_to(response)
    }

    /// Builds a response with a streamed body, and the sender of its chunks.
    pub(super) fn with_chunks(self) -> (Response, mpsc::Sender<Chunk>) {
        let (sender, chunks) = mpsc::channel(MAX_QUEUED_CHUNKS);
        let body = stream::unfold(Some(chunks), |chunks| async {
            let mut chunks: mpsc::Receiver<Chunk> = chunks?;
            match chunks.recv().await {
                Some(Chunk::Data(bytes)) => Some((Ok(bytes), Some(chunks))),
                Some(Chunk::End) => None,
                None => Some((Err("the application aborted the response"), None)),
            }
        });
        (self.apply_to(Response::stream(body)), sender)
    }

    /// Sets the status and headers of a response.
    fn apply_to(self, response: Response) -> Response {
        let mut response = response.status(self.status);
        *response.headers_mut() = self.headers;
        if let Some(reason) = self.reason {
            embed::set_reason(&mut response, reason);
        }
        response
    }
}

/// Parses a status line like `404 NOT FOUND`. Returns the reason phrase if it is not the standard
/// one.
fn status(line: &str) -> Option<(StatusCode, Option<ReasonPhrase>)> {
    let (code, reason) = line.split_once(' ').unwrap_or((line, ""));
    let status = StatusCode::from_bytes(code.as_bytes())
        .ok()
        .filter(|status| !status.is_informational())?;
    if status.canonical_reason() == Some(reason) {
        return Some((status, None));
    }
    Some((status, Some(ReasonPhrase::try_from(bytes(reason)?).ok()?)))
}

/// Appends a header that werkzeug sends unchanged. None if it does not.
fn append_plain(
    headers: &mut HeaderMap,
    name: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Option<()> {
    let name = name.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let value = value.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let is_rewritten = [
        header::LOCATION,
        header::CONTENT_LOCATION,
        header::CONTENT_LENGTH,
    ]
    .contains(&name);
    if is_rewritten {
        return None;
    }
    headers.append(name, header_value(value)?);
    Some(())
}

fn header_value(text: &str) -> Option<HeaderValue> {
    if text.is_ascii() {
        return HeaderValue::from_str(text).ok();
    }
    HeaderValue::from_bytes(&bytes(text)?).ok()
}

/// Converts a WSGI string, which has one character per byte.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|char| u8::try_from(char).ok()).collect()
}

/// Returns the bytes of a body, shared with Python if they are large.
pub(super) fn shared(bytes: PyBackedBytes) -> Bytes {
    if bytes.len() < MIN_SHARED_BODY_BYTES {
        Bytes::copy_from_slice(&bytes)
    } else {
        Bytes::from_owner(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_custom_reason_phrase() {
        for (line, code, reason) in [
            ("200 OK", 200, None),
            ("200 Fine", 200, Some("Fine")),
            ("404 NOT FOUND", 404, Some("NOT FOUND")),
            ("404 Not Found", 404, None),
            ("299 My Reason", 299, Some("My Reason")),
            ("299 ", 299, Some("")),
            ("299", 299, Some("")),
        ] {
            let (status, given) = status(line).unwrap();
            let given = given
                .as_ref()
                .map(|reason| std::str::from_utf8(reason.as_bytes()).unwrap());
            assert_eq!((status.as_u16(), given), (code, reason), "{line}");
        }
        for line in [
            "",
            "Hello",
            "100 Continue",
            "99 x",
            "1000 x",
            "200OK",
            "200 a\r\nb: c",
            "200 \u{20ac}",
        ] {
            assert!(status(line).is_none(), "{line}");
        }
    }
}
