//! `Pending`: a call without its reply yet, or a publish without its confirm.

use std::sync::{Arc, Weak};

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::completions::Completions;
use crate::delivery::Delivery;
use crate::promise::{Outcome, Promise};
use crate::reply_table::ReplyTable;
use crate::wait::{deadline, wait};

/// A pending call or publish.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Pending {
    pub(crate) promise: Arc<Promise>,
    /// The table and correlation id of a call; none for a publish.
    entry: Option<(Weak<ReplyTable>, String)>,
    reply: PyOnceLock<Py<Delivery>>,
}

impl Pending {
    /// A pending publish.
    pub(crate) fn publish(promise: Arc<Promise>) -> Self {
        Pending {
            promise,
            entry: None,
            reply: PyOnceLock::new(),
        }
    }

    /// A pending call, registered in `table` under `correlation_id`.
    pub(crate) fn reply(
        promise: Arc<Promise>,
        table: &Arc<ReplyTable>,
        correlation_id: String,
    ) -> Self {
        Pending {
            promise,
            entry: Some((Arc::downgrade(table), correlation_id)),
            reply: PyOnceLock::new(),
        }
    }

    fn forget(&self) {
        if let Some((table, correlation_id)) = &self.entry
            && let Some(table) = table.upgrade()
        {
            table.forget(correlation_id, &self.promise);
        }
    }
}

#[pymethods]
impl Pending {
    /// Waits for the reply; returns None for a publish. Raises TimeoutError after `timeout` seconds
    /// (it may be waited for again), and AmqpError on a failure: kind 'lost' if no reply can
    /// arrive.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<Delivery>>> {
        let outcome = wait(py, deadline(timeout)?, self.promise.outcome())?;
        match outcome {
            Some(Outcome::Reply(delivery)) => {
                let reply = self
                    .reply
                    .get_or_try_init(py, || Py::new(py, Delivery::settled(*delivery)))?;
                Ok(Some(reply.clone_ref(py)))
            }
            Some(Outcome::Published) => Ok(None),
            Some(Outcome::Failed(failure)) => Err(failure.into_err(py)),
            Some(Outcome::Cancelled) => Err(PyRuntimeError::new_err("the call was cancelled")),
            None => Err(PyTimeoutError::new_err(format!(
                "no result arrived within {} seconds",
                timeout.unwrap_or_default()
            ))),
        }
    }

    /// Returns whether there is a result, or will be none.
    fn done(&self) -> bool {
        self.promise.is_done()
    }

    /// Abandons the call. A reply that still arrives matches no call.
    fn cancel(&self) {
        self.forget();
        self.promise.complete(Outcome::Cancelled);
    }

    /// Registers `fn`, due in `loop_notifier` on completion.
    #[pyo3(signature = (loop_notifier, r#fn))]
    fn add_done_callback(&self, loop_notifier: &Bound<'_, Completions>, r#fn: Py<PyAny>) {
        self.promise.notify(&loop_notifier.get().waker, r#fn);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.forget();
    }
}
