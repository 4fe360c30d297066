//! The body of a request, buffered or streamed.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nameko::web::embed::BodyReader;
use nameko::web::{Error, StatusCode};
use pyo3::exceptions::{PyConnectionResetError, PyOverflowError, PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wait::wait;

/// The number of bytes to read before a worker is claimed, so that a slow client keeps none busy.
/// Python never waits for a body of at most this size.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// The number of bytes of a streamed body that have to arrive within each timeout.
const MIN_PROGRESS_BYTES: usize = 64 << 10;

/// The body of a request.
pub(super) enum Body {
    Buffered(Bytes),
    Streaming(HttpBody),
}

/// Buffers a body, up to [`READ_AHEAD_BYTES`].
///
/// # Errors
///
/// If the client is too slow or breaks off, or the body exceeds its limit.
pub(super) async fn read_ahead(mut body: BodyReader) -> Result<Body, Error> {
    let limit = body.timeout();
    let mut chunks: Vec<Bytes> = Vec::new();
    let reading = async {
        let mut size = 0;
        while size <= READ_AHEAD_BYTES {
            let Some(chunk) = body.next().await? else {
                return Ok::<_, Error>(true);
            };
            size += chunk.len();
            chunks.push(chunk);
        }
        Ok(false)
    };
    let is_complete = match tokio::time::timeout(limit, reading).await {
        Ok(is_complete) => is_complete?,
        Err(_) => return Err(body.too_slow()),
    };
    if !is_complete {
        return Ok(Body::Streaming(HttpBody(Mutex::new(State {
            chunks: chunks.into_iter(),
            rest: body,
            progress: None,
        }))));
    }
    Ok(Body::Buffered(match chunks.len() {
        // The common case, without a copy.
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }))
}

/// A streamed body of a request.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct HttpBody(Mutex<State>);

struct State {
    /// The buffered chunks that come first.
    chunks: std::vec::IntoIter<Bytes>,
    rest: BodyReader,
    /// The bytes read since the last deadline was set, and the deadline. None before the first
    /// read.
    progress: Option<(usize, Instant)>,
}

#[pymethods]
impl HttpBody {
    /// Returns the next chunk, b"" at the end. Raises ConnectionResetError if the client broke off,
    /// TimeoutError if it is too slow, OverflowError if the body exceeds its limit.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => PoisonError::into_inner(state),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err(
                    "another thread is reading the body",
                ));
            }
        };
        if let Some(chunk) = state.chunks.next() {
            return Ok(PyBytes::new(py, &chunk));
        }
        let limit = state.rest.timeout();
        let (read, deadline) = state.progress.unwrap_or_else(|| (0, deadline_after(limit)));
        let Some(next) = wait(py, Some(deadline), state.rest.next())? else {
            let text = state.rest.too_slow().to_string();
            return Err(PyTimeoutError::new_err(text));
        };
        let chunk = match next {
            Ok(chunk) => chunk.unwrap_or_default(),
            Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(PyOverflowError::new_err(error.to_string()));
            }
            Err(error) => return Err(PyConnectionResetError::new_err(error.to_string())),
        };
        let read = read + chunk.len();
        state.progress = Some(if read < MIN_PROGRESS_BYTES {
            (read, deadline)
        } else {
            (0, deadline_after(limit))
        });
        Ok(PyBytes::new(py, &chunk))
    }
}

/// Returns the instant after `limit`, at most a year from now.
fn deadline_after(limit: Duration) -> Instant {
    Instant::now() + limit.min(Duration::from_secs(365 * 86_400))
}
