//! A one-shot result: completed on any thread, awaited by Python threads or an asyncio loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use nameko::amqp::Delivery;
use nameko::internal::lock;
use pyo3::prelude::*;

use crate::completions::CallbackQueue;
use crate::error::Failure;

/// The result of a call or a publish.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The reply arrived.
    Reply(Box<Delivery>),
    /// The message was published.
    Published,
    /// The call or the publish failed.
    Failed(Failure),
    /// Python abandoned the call.
    Cancelled,
}

/// A one-shot result with any number of observers.
#[derive(Default)]
pub(crate) struct Promise(Mutex<State>);

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    wakers: Vec<Waker>,
    callbacks: Vec<(Arc<CallbackQueue>, Py<PyAny>)>,
}

impl Promise {
    /// Sets the outcome, unless there is one.
    pub(crate) fn complete(&self, outcome: Outcome) {
        let (wakers, callbacks) = {
            let mut state = lock(&self.0);
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            (
                std::mem::take(&mut state.wakers),
                std::mem::take(&mut state.callbacks),
            )
        };
        wakers.into_iter().for_each(Waker::wake);
        for (waker, callback) in callbacks {
            waker.push(callback);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        lock(&self.0).outcome.is_some()
    }

    /// Queues `callback` on `waker` once there is an outcome, at once if there is one.
    pub(crate) fn notify(&self, waker: &Arc<CallbackQueue>, callback: Py<PyAny>) {
        let mut state = lock(&self.0);
        if state.outcome.is_some() {
            drop(state);
            waker.push(callback);
        } else {
            state.callbacks.push((waker.clone(), callback));
        }
    }

    /// Resolves to the outcome.
    pub(crate) fn outcome(&self) -> impl Future<Output = Outcome> + Send {
        OutcomeFuture(self)
    }
}

/// Fails the promise on drop unless it was completed: a task is dropped with its runtime.
pub(crate) struct CompletionGuard(Option<Arc<Promise>>);

impl CompletionGuard {
    pub(crate) fn new(promise: Arc<Promise>) -> Self {
        CompletionGuard(Some(promise))
    }

    pub(crate) fn complete(mut self, outcome: Outcome) {
        if let Some(promise) = self.0.take() {
            promise.complete(outcome);
        }
    }

    /// Leaves the promise to be completed by another task.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if let Some(promise) = &self.0 {
            promise.complete(Outcome::Failed(Failure::lost(
                "the process closed its connections before the broker had answered",
            )));
        }
    }
}

struct OutcomeFuture<'a>(&'a Promise);

impl Future for OutcomeFuture<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.0.0);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        let waker = context.waker();
        state.wakers.retain(|known| !known.will_wake(waker));
        state.wakers.push(waker.clone());
        Poll::Pending
    }
}
