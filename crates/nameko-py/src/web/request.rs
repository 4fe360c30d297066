//! One request, from its head to the end of its response.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use nameko::web::http::Method;
use nameko::web::http::request::Parts;
use nameko::web::site;
use nameko::web::{Response, StatusCode, Upgrade};
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use tokio::sync::{mpsc, oneshot};

use crate::jobs;
use crate::lock::lock;
use crate::wait::wait;
use crate::web::body::{Body, HttpBody};
use crate::web::environ;
use crate::web::response::{Chunk, Head, shared};
use crate::web::server::CountGuard;
use crate::web::socket::{Handshake, Sockets, WebSocket};

/// A request of a client, which is answered once. One that is dropped before: the client is told that the service stops.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct HttpRequest {
    head: Parts,
    peer: SocketAddr,
    /// Of the body, where all of it is here.
    length: Option<usize>,
    state: Mutex<State>,
}

struct State {
    /// None once it was asked for.
    body: Option<Body>,
    /// None once it is being answered.
    reply: Option<oneshot::Sender<Response>>,
    /// Where a streamed response goes; none before it begins and after its end.
    chunks: Option<mpsc::Sender<Chunk>>,
    /// Until the response is made.
    in_flight: Option<CountGuard>,
    /// None once it was asked for a WebSocket.
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
                Body::Whole(bytes) => Some(bytes.len()),
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

    /// Sends the response, or its begin; one whose client has gone is for nobody.
    fn answer(&self, response: Response) -> PyResult<()> {
        let reply = lock(&self.state).reply.take();
        match reply {
            Some(reply) => {
                let _ = reply.send(response);
                Ok(())
            }
            None => Err(PyRuntimeError::new_err("the request has been answered")),
        }
    }

    fn finish(&self) {
        let in_flight = lock(&self.state).in_flight.take();
        drop(in_flight);
    }
}

#[pymethods]
impl HttpRequest {
    /// Adds what the request's head says to a WSGI environ.
    fn fill_environ(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        environ::fill(environ, &self.head, self.peer, self.length)
    }

    /// The body, to be asked for once: bytes, or where it is large what reads it.
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let body = lock(&self.state).body.take();
        match body {
            Some(Body::Whole(bytes)) => Ok(PyBytes::new(py, &bytes).into_any()),
            Some(Body::Streaming(body)) => Ok(Bound::<HttpBody>::new(py, body)?.into_any()),
            None => Err(PyRuntimeError::new_err("the body has been taken")),
        }
    }

    /// Answers with a status, `200 OK` say. Raises ValueError for a status or headers that cannot be sent, RuntimeError where it was answered already.
    fn respond(
        &self,
        status: &str,
        headers: Vec<(String, String)>,
        body: PyBackedBytes,
    ) -> PyResult<()> {
        let head = Head::new(status, headers)?;
        // The client's next request is not far.
        jobs::nearly_finished();
        self.answer(head.with_body(shared(body), self.head.method == Method::HEAD))?;
        self.finish();
        Ok(())
    }

    /// Begins an answer whose body follows with `write`, up to `end`. Raises as `respond`.
    fn start_response(&self, status: &str, headers: Vec<(String, String)>) -> PyResult<()> {
        let (response, chunks) = Head::new(status, headers)?.with_chunks();
        self.answer(response)?;
        lock(&self.state).chunks = Some(chunks);
        Ok(())
    }

    /// The WebSocket that the request asks for; it is this request's answer. None where it asks for none: it is answered then.
    fn websocket(&self) -> PyResult<Option<WebSocket>> {
        let response = match site::handshake(&self.head, self.length != Some(0)) {
            Ok(response) => response,
            Err(error) => {
                self.answer(site::refusal(error))?;
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
            _ => Err(PyRuntimeError::new_err("the request has been answered")),
        }
    }

    /// Whether its answer was given, or begun, or left to a WebSocket.
    #[getter]
    fn answered(&self) -> bool {
        lock(&self.state).reply.is_none()
    }

    /// Sends a chunk of the body, once the client has taken most of what came before. Raises ConnectionResetError when the
    /// client has gone.
    fn write(&self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        let chunks = lock(&self.state).chunks.clone();
        let Some(chunks) = chunks else {
            return Err(PyRuntimeError::new_err("no response was begun"));
        };
        let sent = wait(py, None, chunks.send(Chunk::Data(shared(data))))?;
        match sent {
            Some(Ok(())) => Ok(()),
            _ if self.head.method == Method::HEAD => Ok(()),
            _ => Err(PyConnectionResetError::new_err("the client has gone")),
        }
    }

    /// The body is whole.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let chunks = lock(&self.state).chunks.take();
        if let Some(chunks) = chunks {
            // A client that has gone misses nothing.
            let _ = wait(py, None, chunks.send(Chunk::End))?;
        }
        self.finish();
        Ok(())
    }

    /// Breaks off: the client sees that the body is not whole. Unanswered, it is answered with 500.
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
