//! The HTTP server of a container. Requests become jobs of its worker threads.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};

use nameko::Config;
use nameko::internal::lock;
use nameko::web::embed::{
    self, BodyLimits, BoundServer, CannotListen, EmbeddedServer, ServerSettings, SocketSettings,
};
use nameko::web::{RawRequest, Response};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::jobs::{Call, Job, Jobs};
use crate::runtime;
use crate::wait::{deadline, wait};
use crate::web::body::read_ahead;
use crate::web::count::CountGuard;
use crate::web::loop_requests::{LoopRequests, LoopState};
use crate::web::outbox::Outbox;
use crate::web::request::{Claims, Received};
use crate::web::socket::{SocketPhase, Sockets};

/// An HTTP server: listens once created, answers requests from `serve` on.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stop_timeout: f64,
    sockets: SocketSettings,
    state: Mutex<ServerState>,
    /// The number of requests in flight.
    in_flight: Arc<watch::Sender<usize>>,
    /// The number of open WebSockets.
    open: Arc<watch::Sender<usize>>,
    phase: watch::Sender<SocketPhase>,
    outbox: Arc<Outbox>,
}

enum ServerState {
    Bound(Box<BoundServer>),
    Serving(Arc<EmbeddedServer>),
    Closed,
}

#[pymethods]
impl HttpServer {
    /// Binds the port. `settings` are the configuration's keys `WEB_SERVER_*`, `WEBSOCKET_*` and
    /// `stop_timeout`. Raises OSError if the address cannot be bound, ValueError if a setting is
    /// not valid.
    #[new]
    fn new(py: Python<'_>, host: &str, port: u16, settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let settings = ServerSettings::from_config(&config(settings)?)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let (stop_timeout, sockets) = (settings.stop_timeout(), settings.sockets());
        let runtime = runtime::handle()?;
        let server = py
            .detach(|| {
                let _entered = runtime.enter();
                BoundServer::bind(host, port, settings)
            })
            .map_err(|CannotListen { text, source }| {
                PyOSError::new_err((source.raw_os_error(), text))
            })?;
        Ok(HttpServer {
            address: server.address(),
            stop_timeout: stop_timeout.as_secs_f64(),
            sockets,
            state: Mutex::new(ServerState::Bound(Box::new(server))),
            in_flight: Arc::default(),
            open: Arc::default(),
            phase: watch::Sender::default(),
            outbox: Outbox::new(runtime),
        })
    }

    /// The host and port of the listener.
    #[getter]
    fn address(&self) -> (String, u16) {
        (self.address.ip().to_string(), self.address.port())
    }

    /// Returns the file descriptor of the listener, before `serve`. The server keeps owning it.
    fn fileno(&self) -> PyResult<i32> {
        match &*lock(&self.state) {
            ServerState::Bound(server) => Ok(server.as_fd().as_raw_fd()),
            _ => Err(PyRuntimeError::new_err("the server is running or closed")),
        }
    }

    /// How long `stop` waits for responses, in seconds.
    #[getter]
    fn stop_timeout(&self) -> f64 {
        self.stop_timeout
    }

    /// Calls `handler(request)` for each request as a job of `jobs`, at most `limit` at a time;
    /// further requests wait. Requests that `loop_requests` accepts become its items instead.
    #[pyo3(signature = (handler, jobs, limit, loop_requests = None))]
    fn serve(
        &self,
        handler: Py<PyAny>,
        jobs: &Bound<'_, Jobs>,
        limit: usize,
        loop_requests: Option<&Bound<'_, LoopRequests>>,
    ) -> PyResult<()> {
        let runtime = runtime::handle()?;
        let mut state = lock(&self.state);
        let server = match std::mem::replace(&mut *state, ServerState::Closed) {
            ServerState::Bound(server) => server,
            other => {
                *state = other;
                return Err(PyRuntimeError::new_err("the server is running or closed"));
            }
        };
        let sockets = Sockets {
            settings: self.sockets,
            jobs: jobs.get().queue.clone(),
            outbox: self.outbox.clone(),
            permits: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
            open: self.open.clone(),
            phase: self.phase.subscribe(),
        };
        let gateway = Gateway {
            handler: Arc::new(handler),
            loop_requests: loop_requests.map(|requests| requests.get().state()),
            sockets: Arc::new(sockets),
            body: server.body_limits(),
            in_flight: self.in_flight.clone(),
        };
        let _entered = runtime.enter();
        *state = ServerState::Serving(Arc::new(server.serve(gateway)?));
        Ok(())
    }

    /// Stops accepting requests and closes the port. Requests in flight continue.
    fn stop_listening(&self, py: Python<'_>) -> PyResult<()> {
        match self.server() {
            Some(server) => {
                let closed = runtime::handle()?.spawn(async move { server.withdraw().await });
                wait(py, None, closed).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Waits until no request is in flight. Returns False after `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn drain(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let mut in_flight = self.in_flight.subscribe();
        let idle = async move {
            in_flight
                .wait_for(|in_flight| *in_flight == 0)
                .await
                .is_ok()
        };
        Ok(wait(py, deadline(timeout)?, idle)?.is_some())
    }

    /// Closes each WebSocket once its message in flight is handled, with the reason that the
    /// service is shutting down, and later ones at once. Returns False if some are open after
    /// `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn close_sockets(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.phase
            .send_if_modified(|phase| phase.advance(SocketPhase::Closing));
        let mut open = self.open.subscribe();
        let none = async move { open.wait_for(|open| *open == 0).await.is_ok() };
        Ok(wait(py, deadline(timeout)?, none)?.is_some())
    }

    /// Stops accepting requests, waits for responses in flight, up to the stop timeout, then closes
    /// the connections.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let server = self.server();
        if let Some(server) = server {
            let stopped = runtime::handle()?.spawn(async move { server.stop().await });
            wait(py, None, stopped)?;
        }
        self.kill(py)
    }

    /// Closes the port and the connections at once.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.phase
            .send_if_modified(|phase| phase.advance(SocketPhase::Cut));
        let before = std::mem::replace(&mut *lock(&self.state), ServerState::Closed);
        let runtime = runtime::handle()?;
        py.detach(|| {
            let _entered = runtime.enter();
            if let ServerState::Serving(server) = &before {
                server.kill();
            }
            drop(before);
        });
        Ok(())
    }
}

impl HttpServer {
    fn server(&self) -> Option<Arc<EmbeddedServer>> {
        match &*lock(&self.state) {
            ServerState::Serving(server) => Some(server.clone()),
            _ => None,
        }
    }
}

/// Converts a dict of numbers, strings and booleans.
fn config(settings: &Bound<'_, PyDict>) -> PyResult<Config> {
    let mut config = Config::new();
    for (key, value) in settings {
        let key: String = key.extract()?;
        if value.is_none() {
        } else if value.is_instance_of::<PyBool>() {
            config.set(key, value.extract::<bool>()?);
        } else if value.is_instance_of::<PyInt>() {
            config.set(key, value.extract::<i64>()?);
        } else if value.is_instance_of::<PyFloat>() {
            config.set(key, value.extract::<f64>()?);
        } else if value.is_instance_of::<PyString>() {
            config.set(key, value.extract::<String>()?);
        } else {
            let text = format!("{key} is neither a number nor a string");
            return Err(PyTypeError::new_err(text));
        }
    }
    Ok(config)
}

/// Passes each request to the handler as a job, or to an asyncio loop.
struct Gateway {
    handler: Arc<Py<PyAny>>,
    sockets: Arc<Sockets>,
    /// Requests that an asyncio loop handles.
    loop_requests: Option<Arc<LoopState>>,
    body: BodyLimits,
    in_flight: Arc<watch::Sender<usize>>,
}

impl nameko::web::Handler for Gateway {
    async fn handle(&self, request: RawRequest) -> Response {
        let in_flight = CountGuard::new(&self.in_flight);
        let peer = request.peer();
        let (head, body, upgrade) = embed::open(request, self.body);
        let body = match read_ahead(body).await {
            Ok(body) => body,
            Err(error) => return embed::refusal(error),
        };
        let Ok(permit) = self.sockets.permits.clone().acquire_owned().await else {
            return embed::stopping();
        };
        let (reply, response) = oneshot::channel();
        let sockets = self.sockets.clone();
        let claims = Claims {
            _in_flight: in_flight,
            permit: Some(permit),
        };
        let received = Received {
            head,
            peer,
            body,
            reply,
            claims,
            upgrade: (upgrade, sockets),
        };
        match &self.loop_requests {
            Some(requests) if requests.accept(&received.head) => requests.push(received),
            _ => {
                let handler = self.handler.clone();
                let job: Job = Box::new(move |py| {
                    let request = Py::new(py, received.begin())?;
                    Ok(Call::new(handler.clone_ref(py), request))
                });
                if self.sockets.jobs.push(job).is_err() {
                    return embed::stopping();
                }
            }
        }
        response.await.unwrap_or_else(|_| embed::stopping())
    }
}
