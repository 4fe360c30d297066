//! One WebSocket, from the handshake to the end of its connection.

use std::sync::{Arc, Mutex};

use nameko::web::site::{self, Socket, SocketListener, SocketSettings};
use nameko::web::{Bytes, Response, StatusCode, Upgrade};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::jobs::{Job, JobQueue};
use crate::lock::lock;
use crate::runtime;
use crate::web::server::CountGuard;

/// What the sockets of one server share.
pub(super) struct Sockets {
    pub(super) settings: SocketSettings,
    pub(super) jobs: Arc<JobQueue>,
    /// One permit per request or message that is a job.
    pub(super) permits: Arc<Semaphore>,
    /// How many are connected.
    pub(super) open: Arc<watch::Sender<usize>>,
    pub(super) phase: watch::Receiver<SocketPhase>,
}

/// What is to become of sockets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum SocketPhase {
    #[default]
    Serving,
    /// They are told that the service stops, each when the message that it has in work is handled.
    Closing,
    /// They are cut.
    Cut,
}

impl SocketPhase {
    /// Turns into a worse one. Whether it did.
    pub(super) fn advance(&mut self, to: SocketPhase) -> bool {
        let worse = *self < to;
        *self = (*self).max(to);
        worse
    }
}

/// A WebSocket. What is sent before `accept` waits for it.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct WebSocket {
    socket: Socket,
    /// None once it was accepted.
    handshake: Mutex<Option<Handshake>>,
}

/// What accepts the handshake.
pub(super) struct Handshake {
    pub(super) response: Response,
    pub(super) reply: oneshot::Sender<Response>,
    pub(super) upgrade: Upgrade,
    pub(super) sockets: Arc<Sockets>,
    /// The request is in work until it is accepted.
    pub(super) _in_flight: Option<CountGuard>,
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
    /// Accepts the connection. `on_message(message)` is called for each message, one after the other, and last `on_close()`: the
    /// client has left or is lost; both as jobs. A client that says goodbye is answered when `on_close` has returned, or after
    /// two seconds.
    fn accept(&self, on_message: Py<PyAny>, on_close: Py<PyAny>) -> PyResult<()> {
        let handshake = lock(&self.handshake).take();
        let Some(handshake) = handshake else {
            return Err(PyRuntimeError::new_err("the connection has been accepted"));
        };
        let Handshake {
            response,
            reply,
            upgrade,
            sockets,
            _in_flight,
        } = handshake;
        let (mut phase, mut closing) = (sockets.phase.clone(), sockets.phase.clone());
        let (stop, stopping) = watch::channel(false);
        let (socket, settings) = (self.socket.clone(), sockets.settings);
        let open = CountGuard::new(&sockets.open);
        let callbacks = Callbacks {
            on_message: Arc::new(on_message),
            on_close: Arc::new(on_close),
            sockets,
        };
        let serving = async move {
            let _open = open;
            let ended = async {
                tokio::select! {
                    biased;
                    // An error says that the server is gone.
                    _ = phase.wait_for(|it| *it == SocketPhase::Cut) => {}
                    () = site::serve_socket(upgrade, socket, settings, stopping, callbacks) => {}
                }
            };
            let told = async {
                let _ = closing.wait_for(|it| *it == SocketPhase::Closing).await;
                stop.send_replace(true);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = ended => {}
                () = told => {}
            }
        };
        // Its owner is the server, which counts it, and ends it by its phase.
        drop(runtime::handle()?.spawn(serving));
        // A client that has gone is noticed by who serves the socket.
        let _ = reply.send(response);
        Ok(())
    }

    /// Sends a text. One for a socket that is closed is dropped: False.
    fn send(&self, text: String) -> bool {
        self.socket.send(text)
    }

    /// Closes the connection, once all that was sent before is out; one that was not accepted as soon as it is.
    #[pyo3(signature = (code = 1000, reason = ""))]
    fn close(&self, code: u16, reason: &str) {
        self.socket.close(code, reason);
    }

    /// Answers the handshake with 500, unless it was accepted.
    fn reject(&self) {
        let handshake = lock(&self.handshake).take();
        if let Some(handshake) = handshake {
            // A client that has gone misses nothing.
            let refusal = Response::empty(StatusCode::INTERNAL_SERVER_ERROR);
            let _ = handshake.reply.send(refusal);
        }
    }

    /// Nothing more can be sent.
    #[getter]
    fn closed(&self) -> bool {
        self.socket.is_closed()
    }
}

/// Makes a job of each message.
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
        self.run(move |py| {
            let message = match std::str::from_utf8(&body) {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => PyBytes::new(py, &body).into_any(),
            };
            let done = on_message.call1(py, (message,));
            drop(permit);
            done.map(drop)
        })
        .await;
    }

    async fn left(&self) {
        let on_close = self.on_close.clone();
        self.run(move |py| on_close.call0(py).map(drop)).await;
    }
}

impl Callbacks {
    /// Returns when the job is over, or will not be done: the container has stopped.
    async fn run(&self, job: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
        let (done, over) = oneshot::channel::<()>();
        let job = Job::Rust(Box::new(move |py| {
            let result = job(py);
            drop(done);
            result
        }));
        // What is refused is dropped, and with it `done`.
        let _ = self.sockets.jobs.push(job);
        let _ = over.await;
    }
}
