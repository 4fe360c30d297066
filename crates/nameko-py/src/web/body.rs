//! The body of a request that is too large to be held.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nameko::web::site::RequestBody;
use nameko::web::{Error, StatusCode};
use pyo3::exceptions::{PyConnectionResetError, PyOverflowError, PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wait::wait;

/// So much is read before a worker is asked for, so that a slow client keeps none busy; a body that ends by then is never
/// waited for by Python. In bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// So much has to come within the timeout, again and again, of a body that is larger. In bytes.
const MIN_PROGRESS_BYTES: usize = 64 << 10;

/// The body of a request, as far as it is here.
pub(super) enum Body {
    Whole(Bytes),
    Streaming(HttpBody),
}

/// Reads a body to its end, or as far as it is worth waiting for.
pub(super) async fn read_ahead(mut body: RequestBody) -> Result<Body, Error> {
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
    let over = match tokio::time::timeout(limit, reading).await {
        Ok(over) => over?,
        Err(_) => return Err(body.too_slow()),
    };
    if !over {
        return Ok(Body::Streaming(HttpBody(Mutex::new(State {
            chunks: chunks.into_iter(),
            rest: body,
            progress: None,
        }))));
    }
    Ok(Body::Whole(match chunks.len() {
        // Most bodies are one chunk, which needs no copy.
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }))
}

/// The body of a request, read chunk by chunk while it comes.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct HttpBody(Mutex<State>);

struct State {
    /// What is here already.
    chunks: std::vec::IntoIter<Bytes>,
    rest: RequestBody,
    /// How much of a portion came, and by when the whole of it must be here. None before the first.
    progress: Option<(usize, Instant)>,
}

#[pymethods]
impl HttpBody {
    /// The next chunk; b"" at the end. Raises ConnectionResetError when the client broke off, TimeoutError when it is too
    /// slow, OverflowError when the body is larger than it may be.
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
        let (came, deadline) = state.progress.unwrap_or_else(|| (0, deadline_after(limit)));
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
        let came = came + chunk.len();
        state.progress = Some(if came < MIN_PROGRESS_BYTES {
            (came, deadline)
        } else {
            (0, deadline_after(limit))
        });
        Ok(PyBytes::new(py, &chunk))
    }
}

/// The moment `limit` from now; a year from now is never.
fn deadline_after(limit: Duration) -> Instant {
    Instant::now() + limit.min(Duration::from_secs(365 * 86_400))
}
