//! One request, from its head to the end of its response.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use nameko::internal::lock;
use nameko::web::embed;
use nameko::web::http::Method;
use nameko::web::http::request::Parts;
use nameko::web::{Response, StatusCode, Upgrade};
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyString};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::jobs;
use crate::wait::wait;
use crate::web::body::{Body, HttpBody};
use crate::web::count::CountGuard;
use crate::web::environ;
use crate::web::outbox::{Answer, Outbox};
use crate::web::response::{Chunk, Head, shared};
use crate::web::socket::{Handshake, Sockets, WebSocket};

/// A request, responded to once. If it is dropped before, the client gets the response of a service
/// that is shutting down.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct HttpRequest {
    head: Parts,
    peer: SocketAddr,
    /// The length of a buffered body.
    length: Option<usize>,
    started_at: Instant,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

struct State {
    /// None once it was taken.
    body: Option<Body>,
    /// None once the response is sent or begun.
    reply: Option<oneshot::Sender<Response>>,
    /// The sender of a streamed response; none before its start and after its end.
    chunks: Option<mpsc::Sender<Chunk>>,
    /// Dropped once the response is complete.
    claims: Option<Claims>,
    /// None once it was upgraded to a WebSocket.
    upgrade: Option<(Upgrade, Arc<Sockets>)>,
}

/// The share of a request in the limits of its server, until it is dropped.
pub(super) struct Claims {
    pub(super) _in_flight: CountGuard,
    /// Dropped earlier if a response is streamed by another thread.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// A request that waits for Python.
pub(super) struct Received {
    pub(super) head: Parts,
    pub(super) peer: SocketAddr,
    pub(super) body: Body,
    pub(super) reply: oneshot::Sender<Response>,
    pub(super) claims: Claims,
    pub(super) upgrade: (Upgrade, Arc<Sockets>),
}

impl Received {
    /// Converts it to a request whose handling begins now.
    pub(super) fn begin(self) -> HttpRequest {
        HttpRequest {
            head: self.head,
            peer: self.peer,
            length: match &self.body {
                Body::Buffered(bytes) => Some(bytes.len()),
                Body::Streaming(_) => None,
            },
            started_at: Instant::now(),
            outbox: self.upgrade.1.outbox.clone(),
            state: Mutex::new(State {
                body: Some(self.body),
                reply: Some(self.reply),
                chunks: None,
                claims: Some(self.claims),
                upgrade: Some(self.upgrade),
            }),
        }
    }
}

impl HttpRequest {
    pub(super) fn head(&self) -> &Parts {
        &self.head
    }

    /// Sends the response, or its head. Ignores a client that has disconnected.
    fn send_response(&self, response: Response) -> PyResult<()> {
        let reply = lock(&self.state).reply.take();
        match reply {
            Some(reply) => {
                let _ = reply.send(response);
                Ok(())
            }
            None => Err(already_sent()),
        }
    }

    fn finish(&self) {
        let claims = lock(&self.state).claims.take();
        drop(claims);
    }

    /// Takes the task that waits for the response, and the share in the limits.
    fn take_reply(&self) -> PyResult<(oneshot::Sender<Response>, Option<Claims>)> {
        let mut state = lock(&self.state);
        match state.reply.take() {
            Some(reply) => Ok((reply, state.claims.take())),
            None => Err(already_sent()),
        }
    }

    fn with_body(&self, head: Head, body: Bytes) -> Response {
        head.with_body(body, self.head.method == Method::HEAD)
    }
}

fn already_sent() -> PyErr {
    PyRuntimeError::new_err("a response was already sent")
}

#[pymethods]
impl HttpRequest {
    /// Adds the variables of the request to a WSGI environ.
    fn fill_environ(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        environ::fill(environ, &self.head, self.peer, self.length)
    }

    /// The method, such as `GET`.
    #[getter]
    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    /// Takes the body: bytes, or a reader if it is large. May be called once.
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let body = lock(&self.state).body.take();
        match body {
            Some(Body::Buffered(bytes)) => Ok(PyBytes::new(py, &bytes).into_any()),
            Some(Body::Streaming(body)) => Ok(Bound::<HttpBody>::new(py, body)?.into_any()),
            None => Err(PyRuntimeError::new_err("the body was already taken")),
        }
    }

    /// Sends the response. `status` is a line such as `200 OK`. Raises ValueError if the status or
    /// a header is not valid, RuntimeError if a response was sent before.
    fn respond(
        &self,
        status: &str,
        headers: Vec<(String, String)>,
        body: PyBackedBytes,
    ) -> PyResult<()> {
        let response = self.with_body(Head::new(status, headers)?, shared(body));
        // The client's next request follows soon.
        jobs::nearly_finished();
        self.send_response(response)?;
        self.finish();
        Ok(())
    }

    /// Sends a response with the headers of a dict or of a list of pairs, if they are plain, and
    /// with the headers `Content-Type` and `Content-Length`. Returns the number of bytes that the
    /// client gets as the body; None, without a response, if it has to be built by werkzeug. The
    /// response is sent after the job of this thread, or by `flush_replies()` if it holds replies.
    fn respond_text(
        &self,
        status: &str,
        headers: &Bound<'_, PyAny>,
        text: &Bound<'_, PyString>,
        content_type: &str,
    ) -> PyResult<Option<usize>> {
        // Fails for surrogates, which cannot be encoded.
        let Ok(text) = text.to_str() else {
            return Ok(None);
        };
        let Some(head) = Head::plain(status, headers, content_type, text.len()) else {
            return Ok(None);
        };
        let (reply, claims) = self.take_reply()?;
        // The client's next request follows soon.
        jobs::nearly_finished();
        let answer = Answer {
            reply,
            response: self.with_body(head, Bytes::copy_from_slice(text.as_bytes())),
            _claims: claims,
        };
        self.outbox.push(answer);
        Ok(Some(match self.head.method {
            Method::HEAD => 0,
            _ => text.len(),
        }))
    }

    /// Sends the head of a response. Its body follows with `write`, up to `end`. Raises as
    /// `respond`.
    fn start_response(&self, status: &str, headers: Vec<(String, String)>) -> PyResult<()> {
        let (response, chunks) = Head::new(status, headers)?.with_chunks();
        self.send_response(response)?;
        lock(&self.state).chunks = Some(chunks);
        Ok(())
    }

    /// Upgrades the request to a WebSocket, which takes over the response. Returns None after an
    /// error response if the request is not a valid WebSocket handshake.
    fn websocket(&self) -> PyResult<Option<WebSocket>> {
        let response = match embed::handshake(&self.head, self.length != Some(0)) {
            Ok(response) => response,
            Err(error) => {
                self.send_response(embed::refusal(error))?;
                self.finish();
                return Ok(None);
            }
        };
        let (reply, upgrade, claims) = {
            let mut state = lock(&self.state);
            (
                state.reply.take(),
                state.upgrade.take(),
                state.claims.take(),
            )
        };
        match (reply, upgrade) {
            (Some(reply), Some((upgrade, sockets))) => {
                let handshake = Handshake {
                    response,
                    reply,
                    upgrade,
                    sockets,
                    _claims: claims,
                };
                Ok(Some(WebSocket::new(handshake)))
            }
            _ => Err(already_sent()),
        }
    }

    /// Lets another request start, because this one leaves the worker threads.
    fn leave_workers(&self) {
        let permit = lock(&self.state)
            .claims
            .as_mut()
            .and_then(|claims| claims.permit.take());
        drop(permit);
    }

    /// Returns the parts of a line of an access log: the client with its proxies, the method, the
    /// target, the protocol, and the seconds since the handling of the request began.
    fn access(&self) -> (String, &str, Cow<'_, str>, &'static str, f64) {
        (
            environ::client(&self.head, self.peer),
            self.head.method.as_str(),
            environ::target(&self.head),
            environ::protocol(&self.head),
            self.started_at.elapsed().as_secs_f64(),
        )
    }

    /// Whether a response was sent or begun, or is left to a WebSocket.
    #[getter]
    fn answered(&self) -> bool {
        lock(&self.state).reply.is_none()
    }

    /// Sends a chunk of the body. Waits while too many chunks are unsent. Raises
    /// ConnectionResetError if the client has disconnected.
    fn write(&self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        let chunks = lock(&self.state).chunks.clone();
        let Some(chunks) = chunks else {
            return Err(PyRuntimeError::new_err("no response was started"));
        };
        let sent = wait(py, None, chunks.send(Chunk::Data(shared(data))))?;
        match sent {
            Some(Ok(())) => Ok(()),
            _ if self.head.method == Method::HEAD => Ok(()),
            _ => Err(PyConnectionResetError::new_err(
                "the client has disconnected",
            )),
        }
    }

    /// Ends the body.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let chunks = lock(&self.state).chunks.take();
        if let Some(chunks) = chunks {
            // Fails if the client has disconnected.
            let _ = wait(py, None, chunks.send(Chunk::End))?;
        }
        self.finish();
        Ok(())
    }

    /// Cuts the response off, which the client can detect. Without a response, sends 500.
    fn abort(&self) {
        let (reply, chunks) = {
            let mut state = lock(&self.state);
            (state.reply.take(), state.chunks.take())
        };
        drop(chunks);
        if let Some(reply) = reply {
            let _ = reply.send(Response::empty(StatusCode::INTERNAL_SERVER_ERROR));
        }
        self.finish();
    }
}
