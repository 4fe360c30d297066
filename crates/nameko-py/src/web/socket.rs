//! A WebSocket, from the handshake to the end of its connection.

use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use nameko::web::embed::{self, Socket, SocketListener, SocketSettings};
use nameko::web::{Bytes, Response, StatusCode, Upgrade};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::jobs::{Call, Job, JobQueue};
use crate::runtime;
use crate::web::count::CountGuard;
use crate::web::outbox::Outbox;
use crate::web::request::Claims;

/// The shared state of the sockets of one server.
pub(super) struct Sockets {
    pub(super) settings: SocketSettings,
    pub(super) jobs: Arc<JobQueue>,
    pub(super) outbox: Arc<Outbox>,
    /// One permit per request or message in flight.
    pub(super) permits: Arc<Semaphore>,
    /// The number of open sockets.
    pub(super) open: Arc<watch::Sender<usize>>,
    pub(super) phase: watch::Receiver<SocketPhase>,
}

/// A phase in the life of a server's sockets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum SocketPhase {
    #[default]
    Serving,
    /// Each socket is closed once its message in flight is handled.
    Closing,
    /// All connections are dropped.
    Cut,
}

impl SocketPhase {
    /// Advances to a later phase. Returns whether the phase has changed.
    pub(super) fn advance(&mut self, to: SocketPhase) -> bool {
        let changes = *self < to;
        *self = (*self).max(to);
        changes
    }
}

/// A WebSocket. Texts that are sent before `accept` are buffered.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct WebSocket {
    socket: Socket,
    /// None once accepted or rejected.
    handshake: Mutex<Option<Handshake>>,
}

/// A handshake without a response.
pub(super) struct Handshake {
    pub(super) response: Response,
    pub(super) reply: oneshot::Sender<Response>,
    pub(super) upgrade: Upgrade,
    pub(super) sockets: Arc<Sockets>,
    /// Held until the handshake is complete.
    pub(super) _claims: Option<Claims>,
}

impl WebSocket {
    pub(super) fn new(handshake: Handshake) -> Self {
        WebSocket {
            socket: Socket::new(&handshake.sockets.settings),
            handshake: Mutex::new(Some(handshake)),
        }
    }
}

#[pymethods]
impl WebSocket {
    /// Accepts the connection. `on_message(message)` is called for each message in order,
    /// `on_close()` when the client has disconnected; both as jobs. The close handshake completes
    /// when `on_close` has returned, or after two seconds.
    fn accept(&self, on_message: Py<PyAny>, on_close: Py<PyAny>) -> PyResult<()> {
        let handshake = lock(&self.handshake).take();
        let Some(handshake) = handshake else {
            return Err(PyRuntimeError::new_err(
                "the connection was already accepted or rejected",
            ));
        };
        let Handshake {
            response,
            reply,
            upgrade,
            sockets,
            _claims,
        } = handshake;
        let open = CountGuard::new(&sockets.open);
        let callbacks = Callbacks {
            on_message: Arc::new(on_message),
            on_close: Arc::new(on_close),
            sockets,
        };
        let serving = serve(upgrade, self.socket.clone(), callbacks, open);
        // The server counts the task, and ends it through the phase.
        drop(runtime::handle()?.spawn(serving));
        // Fails if the client has disconnected, which the task detects.
        let _ = reply.send(response);
        Ok(())
    }

    /// Sends a text. Returns False if the socket is closed.
    fn send(&self, text: String) -> bool {
        self.socket.send(text)
    }

    /// Closes the connection after all earlier texts, or as soon as it is accepted.
    #[pyo3(signature = (code = 1000, reason = ""))]
    fn close(&self, code: u16, reason: &str) {
        self.socket.close(code, reason);
    }

    /// Responds to the handshake with 500, unless it was accepted.
    fn reject(&self) {
        let handshake = lock(&self.handshake).take();
        if let Some(handshake) = handshake {
            // Fails if the client has disconnected.
            let refusal = Response::empty(StatusCode::INTERNAL_SERVER_ERROR);
            let _ = handshake.reply.send(refusal);
        }
    }

    /// Whether the socket is closed for sending.
    #[getter]
    fn closed(&self) -> bool {
        self.socket.is_closed()
    }
}

/// Serves a socket until its connection ends. Closes or drops the connection with the phase of the
/// server.
async fn serve(upgrade: Upgrade, socket: Socket, callbacks: Callbacks, _open: CountGuard) {
    let settings = callbacks.sockets.settings;
    let mut phase = callbacks.sockets.phase.clone();
    let mut closing = phase.clone();
    let (stop, stopping) = watch::channel(false);
    let ended = async {
        tokio::select! {
            biased;
            // Fails if the server is gone.
            _ = phase.wait_for(|phase| *phase == SocketPhase::Cut) => {}
            () = embed::serve_socket(upgrade, socket, settings, stopping, callbacks) => {}
        }
    };
    let stop_on_close = async {
        let _ = closing
            .wait_for(|phase| *phase == SocketPhase::Closing)
            .await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ended => {}
        () = stop_on_close => {}
    }
}

/// Passes each message to its callback as a job.
struct Callbacks {
    on_message: Arc<Py<PyAny>>,
    on_close: Arc<Py<PyAny>>,
    sockets: Arc<Sockets>,
}

impl SocketListener for Callbacks {
    async fn message(&self, body: Bytes) {
        let Ok(permit) = self.sockets.permits.clone().acquire_owned().await else {
            return;
        };
        let on_message = self.on_message.clone();
        self.run(move |py, finished| {
            let message = match std::str::from_utf8(&body) {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => PyBytes::new(py, &body).into_any(),
            };
            let call = Call::new(on_message.clone_ref(py), message);
            Ok(call.with_guard((permit, finished)))
        })
        .await;
    }

    async fn left(&self) {
        let on_close = self.on_close.clone();
        self.run(move |py, finished| {
            Ok(Call::with_arguments(py, &on_close, ())?.with_guard(finished))
        })
        .await;
    }
}

impl Callbacks {
    /// Runs a job. Returns when it has run, or was dropped by a stopped queue.
    async fn run(
        &self,
        call: impl FnOnce(Python<'_>, oneshot::Sender<()>) -> PyResult<Call> + Send + 'static,
    ) {
        let (sender, finished) = oneshot::channel::<()>();
        let job: Job = Box::new(move |py| call(py, sender));
        drop(self.sockets.jobs.push(job));
        let _ = finished.await;
    }
}
