//! A reply queue. Replies are matched with calls on the I/O thread, never behind a busy worker.

use std::sync::Arc;

use nameko::amqp::Subscription;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::consumers::Consumers;
use crate::convert;
use crate::pending::Pending;
use crate::promise::Promise;
use crate::reply_table::ReplyTable;

/// A reply queue on a [`Consumers`], and its pending calls.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct ReplyListener {
    table: Arc<ReplyTable>,
}

#[pymethods]
impl ReplyListener {
    #[new]
    #[pyo3(signature = (consumers, queue, prefetch = None))]
    fn new(
        consumers: &Bound<'_, Consumers>,
        queue: &Bound<'_, PyDict>,
        prefetch: Option<u16>,
    ) -> PyResult<Self> {
        let table = Arc::new(ReplyTable::default());
        let (source, recovery) = (ReplySource(table.clone()), table.clone());
        let subscription = Subscription {
            queue: convert::queue(queue)?,
            prefetch,
            sink: Arc::new(move |delivery| source.0.receive(delivery)),
            on_recovered: Some(Arc::new(move |survived| {
                if !survived {
                    recovery.queue_lost();
                }
            })),
        };
        consumers.get().listen(subscription, &table);
        Ok(ReplyListener { table })
    }

    /// Registers a call. Raises ValueError if another one is pending with this id.
    fn expect(&self, correlation_id: String) -> PyResult<Pending> {
        let promise = Arc::new(Promise::default());
        if !self.table.expect(&correlation_id, &promise) {
            return Err(PyValueError::new_err(format!(
                "a reply with correlation id `{correlation_id}` is already expected"
            )));
        }
        Ok(Pending::reply(promise, &self.table, correlation_id))
    }

    /// The number of pending calls.
    #[getter]
    fn pending(&self) -> usize {
        self.table.len()
    }

    /// Sets the callback for replies without a pending call.
    fn on_unknown(&self, callback: Py<PyAny>) {
        self.table.on_unknown(callback);
    }

    /// Cancels a call.
    fn discard(&self, correlation_id: &str) {
        self.table.cancel(correlation_id);
    }
}

/// The only source of replies: closes the table on drop, with the consumers or the runtime.
struct ReplySource(Arc<ReplyTable>);

impl Drop for ReplySource {
    fn drop(&mut self) {
        self.0.close();
    }
}
