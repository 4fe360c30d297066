//! Deliveries that an asyncio loop handles without a worker thread.

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::completions::LoopQueue;
use crate::consumers::Unhandled;

/// The deliveries with some routing keys, read with `loop.add_reader(deliveries.fileno(), ...)`.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct LoopDeliveries {
    state: Arc<LoopDeliveriesState>,
}

/// The part of [`LoopDeliveries`] that is independent of Python.
pub(crate) struct LoopDeliveriesState {
    routing_keys: HashSet<String>,
    queue: LoopQueue<Unhandled>,
}

#[pymethods]
impl LoopDeliveries {
    #[new]
    fn new(routing_keys: HashSet<String>) -> PyResult<Self> {
        Ok(LoopDeliveries {
            state: Arc::new(LoopDeliveriesState {
                routing_keys,
                queue: LoopQueue::new()?,
            }),
        })
    }

    /// Returns a file descriptor that is readable while there are deliveries.
    fn fileno(&self) -> i32 {
        self.state.queue.fileno()
    }

    /// Takes the deliveries that have arrived.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let unhandled = self.state.queue.take()?;
        unhandled
            .into_iter()
            .map(|unhandled| unhandled.into_python(py))
            .collect()
    }
}

impl LoopDeliveries {
    pub(crate) fn state(&self) -> Arc<LoopDeliveriesState> {
        self.state.clone()
    }
}

impl LoopDeliveriesState {
    pub(crate) fn accepts(&self, routing_key: &str) -> bool {
        self.routing_keys.contains(routing_key)
    }

    /// Queues a delivery for the loop. It is requeued if the loop never takes it.
    pub(crate) fn push(&self, unhandled: Unhandled) {
        self.queue.push(unhandled);
    }
}
