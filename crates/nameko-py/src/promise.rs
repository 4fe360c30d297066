//! A result that comes later: fulfilled once on any thread, waited for by Python threads or an asyncio loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use nameko::amqp::Delivery;
use pyo3::prelude::*;

use crate::completions::Due;
use crate::error::Failure;
use crate::lock::lock;

/// What became of it.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The reply.
    Reply(Box<Delivery>),
    /// The message was published.
    Published,
    /// It failed.
    Failed(Failure),
    /// Nobody wants it any more.
    Cancelled,
}

/// A result that comes later.
#[derive(Default)]
pub(crate) struct Promise(Mutex<State>);

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    wakers: Vec<Waker>,
    callbacks: Vec<(Arc<Due>, Py<PyAny>)>,
}

impl Promise {
    /// Sets the outcome, unless there is one.
    pub(crate) fn fulfil(&self, outcome: Outcome) {
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
        for (due, callback) in callbacks {
            due.push(callback);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        lock(&self.0).outcome.is_some()
    }

    /// Has `callback` called through `due` when there is an outcome; at once if there is one.
    pub(crate) fn notify(&self, due: &Arc<Due>, callback: Py<PyAny>) {
        let mut state = lock(&self.0);
        if state.outcome.is_some() {
            drop(state);
            due.push(callback);
        } else {
            state.callbacks.push((due.clone(), callback));
        }
    }

    /// Resolves to the outcome.
    pub(crate) fn outcome(&self) -> impl Future<Output = Outcome> + Send {
        Waiting(self)
    }
}

/// A task's duty to fulfil a promise: when the task is dropped with the runtime, the promise fails.
pub(crate) struct Duty(Option<Arc<Promise>>);

impl Duty {
    pub(crate) fn new(promise: Arc<Promise>) -> Self {
        Duty(Some(promise))
    }

    pub(crate) fn fulfil(mut self, outcome: Outcome) {
        if let Some(promise) = self.0.take() {
            promise.fulfil(outcome);
        }
    }

    /// The task has done its part; somebody else fulfils the promise.
    pub(crate) fn pass_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if let Some(promise) = &self.0 {
            promise.fulfil(Outcome::Failed(Failure::lost(
                "the process closed its connections before the broker had answered",
            )));
        }
    }
}

struct Waiting<'a>(&'a Promise);

impl Future for Waiting<'_> {
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
