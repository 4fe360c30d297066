//! Requests that an asyncio loop handles without a worker thread.

use std::collections::HashSet;
use std::sync::Arc;

use nameko::web::http::request::Parts;
use pyo3::prelude::*;

use crate::completions::LoopQueue;
use crate::web::request::{HttpRequest, Received};
use crate::web::routes::{RouteTree, Routes};

/// The requests of some rules, read with `loop.add_reader(requests.fileno(), ...)`.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct LoopRequests {
    state: Arc<LoopState>,
}

/// The part of [`LoopRequests`] that is independent of Python.
pub(super) struct LoopState {
    routes: Arc<RouteTree>,
    rules: HashSet<usize>,
    queue: LoopQueue<Received>,
}

#[pymethods]
impl LoopRequests {
    /// Accepts requests for which `routes` finds one of `rules`.
    #[new]
    fn new(routes: &Bound<'_, Routes>, rules: HashSet<usize>) -> PyResult<Self> {
        Ok(LoopRequests {
            state: Arc::new(LoopState {
                routes: routes.get().tree(),
                rules,
                queue: LoopQueue::new()?,
            }),
        })
    }

    /// Returns a file descriptor that is readable while there are requests.
    fn fileno(&self) -> i32 {
        self.state.queue.fileno()
    }

    /// Takes the requests that have arrived.
    fn take(&self) -> std::io::Result<Vec<HttpRequest>> {
        let received = self.state.queue.take()?;
        Ok(received.into_iter().map(Received::begin).collect())
    }
}

impl LoopRequests {
    pub(super) fn state(&self) -> Arc<LoopState> {
        self.state.clone()
    }
}

impl LoopState {
    pub(super) fn accept(&self, head: &Parts) -> bool {
        self.routes
            .index(head)
            .is_some_and(|index| self.rules.contains(&index))
    }

    pub(super) fn push(&self, received: Received) {
        self.queue.push(received);
    }
}
