//! One request, from its head to the end of its response.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use nameko::web::embed;
use nameko::web::http::Method;
use nameko::web::http::request::Parts;
use nameko::web::{Response, StatusCode, Upgrade};
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use tokio::sync::{mpsc, oneshot};

use crate::jobs;
use crate::wait::wait;
use crate::web::body::{Body, HttpBody};
use crate::web::count::CountGuard;
use crate::web::environ;
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
    in_flight: Option<CountGuard>,
    /// None once it was upgraded to a WebSocket.
    upgrade: Option<(Upgrade, Arc<Sockets>)>,
}

impl HttpRequest {
    pub(super) fn new(
        head: Parts,
        peer: SocketAddr,
        body: Body,
        reply: oneshot::Sender<Response>,
        in_flight: CountGuard,
        upgrade: (Upgrade, Arc<Sockets>),
    ) -> Self {
        HttpRequest {
            head,
            peer,
            length: match &body {
                Body::Buffered(bytes) => Some(bytes.len()),
                Body::Streaming(_) => None,
            },
            state: Mutex::new(State {
                body: Some(body),
                reply: Some(reply),
                chunks: None,
                in_flight: Some(in_flight),
                upgrade: Some(upgrade),
            }),
        }
    }

    /// Sends the response, or its head. Ignores a client that has disconnected.
    fn send_response(&self, response: Response) -> PyResult<()> {
        let reply = lock(&self.state).reply.take();
        match reply {
            Some(reply) => {
                let _ = reply.send(response);
                Ok(())
            }
            None => Err(PyRuntimeError::new_err("a response was already sent")),
        }
    }

    fn finish(&self) {
        let in_flight = lock(&self.state).in_flight.take();
        drop(in_flight);
    }
}

#[pymethods]
impl HttpRequest {
    /// Adds the variables of the request to a WSGI environ.
    fn fill_environ(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        environ::fill(environ, &self.head, self.peer, self.length)
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
        let head = Head::new(status, headers)?;
        // The client's next request follows soon.
        jobs::nearly_finished();
        self.send_response(head.with_body(shared(body), self.head.method == Method::HEAD))?;
        self.finish();
        Ok(())
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
        let (reply, upgrade, in_flight) = {
            let mut state = lock(&self.state);
            (
                state.reply.take(),
                state.upgrade.take(),
                state.in_flight.take(),
            )
        };
        match (reply, upgrade) {
            (Some(reply), Some((upgrade, sockets))) => {
                let handshake = Handshake {
                    response,
                    reply,
                    upgrade,
                    sockets,
                    _in_flight: in_flight,
                };
                Ok(Some(WebSocket::new(handshake)))
            }
            _ => Err(PyRuntimeError::new_err("a response was already sent")),
        }
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
