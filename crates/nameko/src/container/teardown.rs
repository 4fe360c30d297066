//! The teardown of workers.

use std::{collections::VecDeque, future::poll_fn, pin::pin, task::Poll, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{runtime::Handle, sync::SemaphorePermit, time::timeout};

use super::{
    Container,
    worker::{attempt, report},
};
use crate::{
    error::Error,
    reply::Outcome,
    stateful_provider::WorkerEnd,
    worker::{NamedHooks, WorkerContext},
};

/// Timeout for the `worker_teardown` of a provider.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The end of a worker.
pub(super) struct End {
    /// The outcome that was sent.
    pub(super) outcome: Option<Outcome>,
    /// Whether `before_reply` was called.
    pub(super) is_complete: bool,
    pub(super) is_killed: bool,
}

impl End {
    fn as_worker_end(&self) -> WorkerEnd<'_> {
        match &self.outcome {
            Some(outcome) if self.is_complete => WorkerEnd::Completed(outcome),
            _ if self.is_killed => WorkerEnd::Killed,
            _ => WorkerEnd::Cancelled,
        }
    }
}

/// Calls `worker_teardown` of the providers.
pub(super) async fn tear_down(
    container: Container,
    ctx: WorkerContext,
    mut hooks: VecDeque<NamedHooks>,
    end: End,
) -> End {
    while let Some(NamedHooks { field, hooks }) = hooks.pop_front() {
        let hook = async { hooks.tear_down(&ctx, end.as_worker_end()).await };
        let mut hook = pin!(attempt(hook));
        // Polled once without the timer: most hooks do not wait.
        let polled = poll_fn(|cx| Poll::Ready(hook.as_mut().poll(cx))).await;
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => timeout(TEARDOWN_TIMEOUT, hook).await.unwrap_or_else(|_| {
                let text = format!("not completed within {TEARDOWN_TIMEOUT:?}");
                Err(Error::raise("Timeout", text))
            }),
        };
        if let Err(error) = result {
            report("worker_teardown", &field, &ctx, &error);
            container.kill_if_fatal(error);
        }
    }
    end
}

impl Container {
    /// Kills the container if the error of a hook asks for it.
    pub(super) fn kill_if_fatal(&self, error: Error) {
        if let Error::Fatal(error) = error {
            self.kill(*error);
        }
    }

    /// Runs the rest of the teardown of a dropped worker, which keeps its slot until then.
    pub(super) fn continue_teardown(
        &self,
        teardown: BoxFuture<'static, End>,
        slot: Option<SemaphorePermit<'_>>,
    ) {
        let slot = slot.map(|permit| {
            permit.forget();
            HeldSlot(self.clone())
        });
        let runtime = self.inner.runtime.get();
        let entered = match (Handle::try_current(), runtime) {
            (Ok(_), _) => None,
            (Err(_), Some(runtime)) => Some(runtime.enter()),
            (Err(error), None) => {
                return tracing::error!(
                    service = self.service_name(),
                    "cannot tear down a dropped worker: {error}"
                );
            }
        };
        self.inner.teardowns.spawn(async move {
            teardown.await;
            drop(slot);
        });
        drop(entered);
    }
}

/// The slot of a worker, released on drop.
struct HeldSlot(Container);

impl Drop for HeldSlot {
    fn drop(&mut self) {
        self.0.inner.slots.add_permits(1);
    }
}
