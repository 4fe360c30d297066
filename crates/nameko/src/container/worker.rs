//! A running worker, which is torn down even if it is dropped before its end.

use std::{collections::VecDeque, future::Future, mem, panic::AssertUnwindSafe};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::SemaphorePermit;

use super::{
    Container,
    service_dispatch::Work,
    teardown::{End, tear_down},
};
use crate::{
    error::{Error, Result},
    error_chain::one_line,
    protocol::Fault,
    reply::Outcome,
    worker::{NamedHooks, WorkerContext},
};

/// A worker with the hooks of its injected providers.
pub(super) struct Worker<'c> {
    container: &'c Container,
    pub(super) ctx: WorkerContext,
    slot: Option<SemaphorePermit<'c>>,
    hooks: VecDeque<NamedHooks>,
    /// Whether `before_reply` of all providers was called. If not, a layer has dropped the work, or
    /// answered by itself.
    is_complete: bool,
    /// The first error of a hook that kills the container.
    fatal: Option<Error>,
    /// The outcome that was sent.
    outcome: Option<Outcome>,
    /// The running teardown.
    teardown: Option<BoxFuture<'static, End>>,
}

impl<'c> Worker<'c> {
    pub(super) fn new(
        container: &'c Container,
        ctx: WorkerContext,
        slot: SemaphorePermit<'c>,
    ) -> Self {
        Self {
            container,
            ctx,
            slot: Some(slot),
            hooks: VecDeque::new(),
            is_complete: false,
            fatal: None,
            outcome: None,
            teardown: None,
        }
    }

    /// Injects the dependencies, runs the method, and calls `before_reply` of the providers.
    pub(super) async fn run(&mut self, work: Work) -> Outcome {
        let mut outcome = match AssertUnwindSafe(work(self)).catch_unwind().await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(outcome_of(error, &mut self.fatal)),
            Err(panic) => Err(Fault::panic(panic.as_ref())),
        };
        self.ctx.take_hooks(&mut self.hooks);
        for NamedHooks { field, hooks } in &mut self.hooks {
            let hook = async { hooks.before_reply(&self.ctx, &mut outcome).await };
            if let Err(error) = attempt(hook).await {
                report("before_reply", field, &self.ctx, &error);
                outcome = Err(outcome_of(error, &mut self.fatal));
            }
        }
        self.is_complete = true;
        outcome
    }

    /// Calls `worker_setup` of the injected providers.
    pub(super) async fn set_up(&mut self) -> Result<()> {
        self.ctx.take_hooks(&mut self.hooks);
        for NamedHooks { field, hooks } in &mut self.hooks {
            let hook = hooks.set_up(&self.ctx).await;
            hook.inspect_err(|error| report("worker_setup", field, &self.ctx, error))?;
        }
        Ok(())
    }

    /// Returns the error of a hook that kills the container.
    pub(super) fn take_fatal(&mut self) -> Option<Error> {
        self.fatal.take()
    }

    /// Calls `worker_result` and `worker_teardown` of the providers, then the observers.
    pub(super) async fn finish(&mut self, outcome: Outcome) {
        if !self.is_complete {
            self.ctx.take_hooks(&mut self.hooks);
        }
        let outcome = &*self.outcome.insert(outcome);
        for NamedHooks { field, hooks } in &mut self.hooks {
            let hook = async { hooks.result(&self.ctx, outcome).await };
            if let Err(error) = attempt(hook).await {
                report("worker_result", field, &self.ctx, &error);
                self.container.kill_if_fatal(error);
            }
        }
        let observers = self.container.inner.observers.current();
        if !self.hooks.is_empty() {
            let teardown = self.begin_teardown();
            let end = self.teardown.insert(teardown).as_mut().await;
            self.teardown = None;
            self.outcome = end.outcome;
        }
        if let Some(outcome) = &self.outcome {
            for observer in observers {
                observer.worker_ended(&self.ctx, outcome);
            }
        }
    }

    fn begin_teardown(&mut self) -> BoxFuture<'static, End> {
        let end = End {
            outcome: self.outcome.take(),
            is_complete: self.is_complete,
            is_killed: self.container.inner.killed_by.get().is_some(),
        };
        let hooks = mem::take(&mut self.hooks);
        Box::pin(tear_down(
            self.container.clone(),
            self.ctx.clone(),
            hooks,
            end,
        ))
    }
}

impl Drop for Worker<'_> {
    /// Continues the teardown in a task of its own, unless it has completed.
    fn drop(&mut self) {
        self.hooks.extend(self.ctx.close_hooks());
        if self.teardown.is_none() && !self.hooks.is_empty() {
            self.teardown = Some(self.begin_teardown());
        }
        if let Some(teardown) = self.teardown.take() {
            self.container.continue_teardown(teardown, self.slot.take());
        }
    }
}

/// Runs a hook. Returns a panic as an error.
pub(super) async fn attempt(hook: impl Future<Output = Result<()>>) -> Result<()> {
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Error::raised(Fault::panic(panic.as_ref()))),
    }
}

/// Returns the error of a failed hook for the caller, and keeps it if it kills the container.
fn outcome_of(error: Error, fatal: &mut Option<Error>) -> Fault {
    let fault = Fault::of(&error);
    if matches!(error, Error::Fatal(_)) {
        fatal.get_or_insert(error);
    }
    fault
}

/// Logs the error of a hook.
pub(super) fn report(hook: &str, field: &str, ctx: &WorkerContext, error: &Error) {
    tracing::error!(
        dependency = field,
        call_id = ctx.call_id(),
        "`{hook}` of worker {ctx} failed: {}",
        one_line(error),
    );
}
