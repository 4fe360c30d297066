//! What a WSGI application answers with.

use bytes::Bytes;
use futures_util::stream;
use nameko::web::http::header;
use nameko::web::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tokio::sync::mpsc;

/// From this size on a body is sent from Python's memory; a smaller one is copied. In bytes.
const WORTH_SHARING: usize = 32 << 10;
/// How many pieces of a streamed response may wait to be sent.
const WAITING: usize = 8;

/// A part of a streamed response.
pub(super) enum Piece {
    Data(Bytes),
    /// The response is whole. A stream without it is broken off.
    End,
}

/// The status line and the headers of a response.
pub(super) struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    /// # Errors
    /// ValueError for what cannot stand in a response.
    pub(super) fn new(status: u16, headers: Vec<(String, String)>) -> PyResult<Self> {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|it| !it.is_informational())
            .ok_or_else(|| PyValueError::new_err(format!("{status} is no status of a response")))?;
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
            headers: map,
        })
    }

    /// A response whose body is here. To `HEAD`, only its length is told.
    pub(super) fn with_body(mut self, body: Bytes, to_head: bool) -> Response {
        let mut response = if body.is_empty() || to_head {
            if !body.is_empty() {
                self.headers
                    .entry(header::CONTENT_LENGTH)
                    .or_insert_with(|| HeaderValue::from(body.len()));
            }
            Response::empty(self.status)
        } else {
            Response::bytes(body).status(self.status)
        };
        *response.headers_mut() = self.headers;
        response
    }

    /// A response whose body comes in pieces.
    pub(super) fn with_pieces(self) -> (Response, mpsc::Sender<Piece>) {
        let (sender, pieces) = mpsc::channel(WAITING);
        let body = stream::unfold(Some(pieces), |pieces| async {
            let mut pieces: mpsc::Receiver<Piece> = pieces?;
            match pieces.recv().await {
                Some(Piece::Data(bytes)) => Some((Ok(bytes), Some(pieces))),
                Some(Piece::End) => None,
                None => Some((Err("the application broke it off"), None)),
            }
        });
        let mut response = Response::stream(body).status(self.status);
        *response.headers_mut() = self.headers;
        (response, sender)
    }
}

/// WSGI's strings have a character for each byte.
fn header_value(text: &str) -> Option<HeaderValue> {
    if text.is_ascii() {
        return HeaderValue::from_str(text).ok();
    }
    let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    HeaderValue::from_bytes(&bytes.ok()?).ok()
}

/// A piece of a body, to be sent.
pub(super) fn shared(bytes: PyBackedBytes) -> Bytes {
    if bytes.len() < WORTH_SHARING {
        Bytes::copy_from_slice(&bytes)
    } else {
        Bytes::from_owner(bytes)
    }
}
