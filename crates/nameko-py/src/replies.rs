//! Replies to calls, matched by correlation id on the I/O thread: never behind a busy worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use nameko::amqp::{Delivery, Subscription};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::callbacks;
use crate::consumers::Consumers;
use crate::convert;
use crate::delivery::Delivery as PyDelivery;
use crate::error::Failure;
use crate::jobs::Job;
use crate::lock::lock;
use crate::pending::Pending;
use crate::promise::{Outcome, Promise};

const CLOSED_REASON: &str = "the connection for replies was closed: no reply can come any more";

/// A reply queue on a [`Consumers`], and the calls that wait for replies in it.
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
        let (source, recovery) = (Source(table.clone()), table.clone());
        let subscription = Subscription {
            queue: convert::queue(queue)?,
            prefetch,
            sink: Arc::new(move |delivery| source.0.receive(delivery)),
            on_recovered: Some(Arc::new(move |survived| {
                if !survived {
                    recovery.fail_all("the reply queue was gone after the connection to the broker was lost, and replies with it; the call may have been carried out");
                }
            })),
        };
        consumers.get().listen(subscription, &table);
        Ok(ReplyListener { table })
    }

    /// Expects a reply. Raises ValueError when one is expected with that id already.
    fn expect(&self, correlation_id: String) -> PyResult<Pending> {
        let promise = Arc::new(Promise::default());
        if !self.table.expect(&correlation_id, &promise) {
            return Err(PyValueError::new_err(format!(
                "a reply with correlation id `{correlation_id}` is waited for already"
            )));
        }
        Ok(Pending::reply(promise, &self.table, correlation_id))
    }

    /// Replies waited for.
    #[getter]
    fn pending(&self) -> usize {
        lock(&self.table.state).expected.len()
    }

    /// Has `callback` called with each reply that nobody waits for here.
    fn on_unknown(&self, callback: Py<PyAny>) {
        lock(&self.table.state).on_unknown = Some(Arc::new(callback));
    }

    /// Expects the reply no more.
    fn discard(&self, correlation_id: &str) {
        let promise = lock(&self.table.state).expected.remove(correlation_id);
        if let Some(promise) = promise {
            promise.complete(Outcome::Cancelled);
        }
    }
}

/// Where replies come from. When it is dropped, with the consumers or the runtime, no more can come.
struct Source(Arc<ReplyTable>);

impl Drop for Source {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The calls that wait, by correlation id.
#[derive(Default)]
pub(crate) struct ReplyTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    expected: HashMap<String, Arc<Promise>>,
    on_unknown: Option<Arc<Py<PyAny>>>,
    /// No reply can come any more: the consumers were stopped.
    closed: bool,
}

impl ReplyTable {
    /// Fails every call that waits.
    pub(crate) fn fail_all(&self, why: &str) {
        let expected = std::mem::take(&mut lock(&self.state).expected);
        for promise in expected.into_values() {
            promise.complete(Outcome::Failed(Failure::lost(why)));
        }
    }

    /// Fails every call that waits, and each that will.
    pub(crate) fn end(&self) {
        let on_unknown = {
            let mut state = lock(&self.state);
            state.closed = true;
            // It may hold whoever holds the listener.
            state.on_unknown.take()
        };
        drop(on_unknown);
        self.fail_all(CLOSED_REASON);
    }

    /// Drops the entry, if it is still that of `promise`.
    pub(crate) fn forget(&self, correlation_id: &str, promise: &Arc<Promise>) {
        let expected = &mut lock(&self.state).expected;
        if expected
            .get(correlation_id)
            .is_some_and(|known| Arc::ptr_eq(known, promise))
        {
            expected.remove(correlation_id);
        }
    }

    /// False when the id is in use.
    fn expect(&self, correlation_id: &str, promise: &Arc<Promise>) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            promise.complete(Outcome::Failed(Failure::lost(CLOSED_REASON)));
            return true;
        }
        if state.expected.contains_key(correlation_id) {
            return false;
        }
        state
            .expected
            .insert(correlation_id.to_owned(), promise.clone());
        true
    }

    /// A reply came, on the I/O thread.
    fn receive(&self, delivery: Delivery) {
        delivery.acker.ack();
        let correlation_id = delivery
            .properties
            .correlation_id
            .as_deref()
            .unwrap_or_default();
        let (promise, on_unknown) = {
            let mut state = lock(&self.state);
            let promise = state.expected.remove(correlation_id);
            let on_unknown = if promise.is_none() {
                state.on_unknown.clone()
            } else {
                None
            };
            (promise, on_unknown)
        };
        if let Some(promise) = promise {
            promise.complete(Outcome::Reply(Box::new(delivery)));
        } else if let Some(callback) = on_unknown {
            callbacks::post(Job::Rust(Box::new(move |py| {
                let message = PyDelivery::settled(Box::new(delivery));
                callback.call1(py, (message,)).map(drop)
            })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_nobody_waits_for_leaves_nothing_behind() {
        let table = ReplyTable::default();
        let (first, second) = (Arc::new(Promise::default()), Arc::new(Promise::default()));
        assert!(table.expect("a", &first));
        assert!(!table.expect("a", &second), "the id is in use");
        table.forget("a", &second);
        assert_eq!(lock(&table.state).expected.len(), 1, "only its own entry");
        table.forget("a", &first);
        assert!(lock(&table.state).expected.is_empty());
    }

    #[test]
    fn no_call_hangs_after_the_end() {
        let table = ReplyTable::default();
        let (before, after) = (Arc::new(Promise::default()), Arc::new(Promise::default()));
        assert!(table.expect("before", &before));
        table.end();
        assert!(table.expect("after", &after));
        assert!(before.is_done() && after.is_done());
        assert!(lock(&table.state).expected.is_empty());
    }
}
