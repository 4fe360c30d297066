//! The pending calls of a reply queue, with the callback for replies that match none of them.

use std::sync::{Arc, Mutex};

use nameko::amqp::Delivery;
use nameko::internal::{self, PendingCall, lock};
use pyo3::prelude::*;

use crate::callbacks;
use crate::delivery::Delivery as PyDelivery;
use crate::error::Failure;
use crate::promise::{Outcome, Promise};

/// A call that is completed through its promise.
struct Call(Arc<Promise>);

impl PendingCall for Call {
    fn complete(self, reply: Result<Delivery, String>) {
        self.0.complete(match reply {
            Ok(delivery) => Outcome::Reply(Box::new(delivery)),
            Err(reason) => Outcome::Failed(Failure::lost(reason)),
        });
    }
}

/// The pending calls of one reply queue.
#[derive(Default)]
pub(crate) struct ReplyTable {
    calls: Arc<internal::ReplyTable<Call>>,
    on_unknown: Mutex<Option<Arc<Py<PyAny>>>>,
}

impl ReplyTable {
    /// Adds a pending call. Returns false if another one is pending with this id.
    pub(crate) fn expect(&self, correlation_id: &str, promise: &Arc<Promise>) -> bool {
        let call = Call(promise.clone());
        self.calls.insert(correlation_id.to_owned(), call).is_ok()
    }

    /// Removes the call of `promise`, if it is pending.
    pub(crate) fn forget(&self, correlation_id: &str, promise: &Arc<Promise>) {
        self.calls
            .remove_if(correlation_id, |call| Arc::ptr_eq(&call.0, promise));
    }

    /// Cancels the call with this id.
    pub(crate) fn cancel(&self, correlation_id: &str) {
        if let Some(call) = self.calls.remove_if(correlation_id, |_| true) {
            call.0.complete(Outcome::Cancelled);
        }
    }

    /// The number of pending calls.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Sets the callback for replies without a pending call.
    pub(crate) fn on_unknown(&self, callback: Py<PyAny>) {
        let previous = lock(&self.on_unknown).replace(Arc::new(callback));
        drop(previous);
    }

    /// Handles a reply, on the I/O thread.
    pub(crate) fn receive(&self, delivery: Delivery) {
        let Some(unknown) = self.calls.receive(delivery) else {
            return;
        };
        let callback = lock(&self.on_unknown).clone();
        if let Some(callback) = callback {
            callbacks::post(&callback, |_| (PyDelivery::settled(unknown),));
        }
    }

    /// Fails the pending calls: the broker has deleted the reply queue.
    pub(crate) fn queue_lost(&self) {
        self.calls.fail_all(
            "the reply queue was gone after the connection to the broker was lost, and replies with it; \
             the call may have been carried out",
        );
    }

    /// Starts the grace period after which the pending calls fail.
    pub(crate) fn connection_lost(&self) {
        self.calls.connection_lost(|| {
            format!(
                "the connection to the broker has been lost for {} seconds: no reply arrived, and the call \
                 may have been carried out",
                internal::REPLY_GRACE_PERIOD.as_secs()
            )
        });
    }

    /// Ends the grace period.
    pub(crate) fn connection_recovered(&self) {
        self.calls.connection_recovered();
    }

    /// Fails the pending calls, and all later ones: no reply can arrive any more.
    pub(crate) fn close(&self) {
        // The callback may refer to the owner of the listener.
        let callback = lock(&self.on_unknown).take();
        drop(callback);
        self.calls
            .close("the connection for replies was closed: no reply can arrive any more");
    }
}
