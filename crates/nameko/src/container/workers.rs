//! Workers: one per call, from the arguments to the last hook.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    time::Instant,
};

use futures_util::{FutureExt, future::poll_fn};
use serde_json::Value;
use tracing::Level;

use super::{
    Container,
    method::MethodHandle,
    service_dispatch::Work,
    worker_span::{TARGET, WorkerSpan},
};
use crate::{
    amqp::Table,
    arguments::{Arguments, shorten},
    error::{Error, Result},
    protocol::Fault,
    redaction::redact,
    reply::Outcome,
    tasks::TaskHandle,
    worker::WorkerContext,
};

impl Container {
    /// Runs a worker to completion in the calling task; waits while `max_workers` are busy.
    /// `handle_result` sends the reply: it receives the outcome before the providers, and may
    /// change it.
    ///
    /// Runs in a `tracing` span `worker` with the fields `service`, `method`, `entrypoint`,
    /// `call_id`, `parent` (the caller's call id), and at the end `outcome` (`ok`, or the class
    /// name of the error), `expected` and `duration_ms` (of the method, without the reply).
    /// Arguments are only logged at level `trace`, with sensitive ones redacted.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] if the arguments do not match the method; no worker is created
    /// then. [`Error::ContainerStopping`] if the container accepts no more work.
    pub async fn run_worker<F, Fut>(
        &self,
        method: &MethodHandle,
        arguments: Arguments,
        context_data: Table,
        handle_result: F,
    ) -> Result<()>
    where
        F: FnOnce(Outcome) -> Fut + Send,
        Fut: Future<Output = Outcome> + Send,
    {
        let work = self.prepare(method, arguments)?;
        self.run(method, work, context_data, handle_result).await
    }

    /// Spawns a worker in a task of the container. `handle_result` receives the outcome, also if
    /// the arguments do not match the method and no worker is created. It is dropped uncalled if
    /// the container accepts no more work.
    pub fn spawn_worker<F, Fut>(
        &self,
        method: &MethodHandle,
        arguments: Arguments,
        context_data: Table,
        handle_result: F,
    ) -> TaskHandle
    where
        F: FnOnce(Outcome) -> Fut + Send + 'static,
        Fut: Future<Output = Outcome> + Send,
    {
        let (container, method) = (self.clone(), method.clone());
        self.spawn(async move {
            match container.prepare(&method, arguments) {
                Ok(work) => {
                    let worker = container.run(&method, work, context_data, handle_result);
                    if let Err(error) = worker.await {
                        tracing::debug!(target: TARGET, "{}: {error}", method.name);
                    }
                }
                Err(error) => {
                    let service = container.service_name();
                    tracing::warn!(target: TARGET, "no worker for {service}.{}: {error}", method.name);
                    // Not passed to the providers, since there was no worker.
                    let _ = handle_result(Err(Fault::of(&error))).await;
                }
            }
        })
    }

    fn prepare(&self, method: &MethodHandle, arguments: Arguments) -> Result<Prepared> {
        let wanted = tracing::enabled!(target: TARGET, Level::TRACE) && !arguments.has_origin();
        let shown = wanted.then(|| shown(method, &arguments));
        // The service's types deserialize the arguments. Their panic fails the call, like a panic
        // of the method.
        let prepare = AssertUnwindSafe(|| self.inner.dispatch.prepare(method.index, arguments));
        let work = catch_unwind(prepare)
            .unwrap_or_else(|panic| Err(Error::Raised(Fault::panic(panic.as_ref()))))?;
        Ok(Prepared { work, shown })
    }

    async fn run<F, Fut>(
        &self,
        method: &MethodHandle,
        Prepared { work, shown }: Prepared,
        context_data: Table,
        handle_result: F,
    ) -> Result<()>
    where
        F: FnOnce(Outcome) -> Fut + Send,
        Fut: Future<Output = Outcome> + Send,
    {
        let inner = &self.inner;
        let _slot = inner.slots.acquire().await.map_err(|_| self.stopping())?;
        let ctx = WorkerContext::new(
            inner.service.clone(),
            method.name,
            inner.config.clone(),
            inner.limits.parents,
            context_data,
        );
        let entrypoint = inner.entrypoints.get(method.index);
        let label = entrypoint.map(|mounted| &mounted.label);
        let span = WorkerSpan::new(&ctx, label);
        #[cfg(feature = "cli")]
        super::worker_fields::WorkerFields::attach(span.get(), &ctx, label);
        let worker = async {
            if let Some(arguments) = shown {
                tracing::trace!(target: TARGET, arguments, "worker {ctx} begins");
            }
            let begun = Instant::now();
            let work = work(ctx.clone(), inner.providers.clone());
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(broken)) => return Err(self.broken_hook(broken)),
                Err(panic) => Err(Fault::panic(panic.as_ref())),
            };
            span.end(&ctx, method, &outcome, begun.elapsed());
            let outcome = handle_result(outcome).await;
            self.finish(&ctx, &outcome).await
        };
        let mut worker = pin!(worker);
        poll_fn(|cx| span.in_scope(|| worker.as_mut().poll(cx))).await
    }

    /// Runs the result and teardown hooks of the providers, then notifies observers.
    async fn finish(&self, ctx: &WorkerContext, outcome: &Outcome) -> Result<()> {
        let (providers, observers) = (&self.inner.providers, self.inner.observers.current());
        if providers.is_empty() && observers.is_empty() {
            return Ok(());
        }
        let hooks = async {
            for bound in providers.iter() {
                bound.provider.worker_result(ctx, outcome).await?;
            }
            for bound in providers.iter() {
                bound.provider.worker_teardown(ctx).await?;
            }
            observers
                .iter()
                .for_each(|observer| observer.worker_ended(ctx, outcome));
            Ok(())
        };
        match AssertUnwindSafe(hooks).catch_unwind().await {
            Ok(finished) => finished.map_err(|broken| self.broken_hook(broken)),
            Err(panic) => Err(self.broken_hook(Error::Raised(Fault::panic(panic.as_ref())))),
        }
    }

    /// Kills the container if a `worker_*` hook of a provider fails, as in Nameko.
    fn broken_hook(&self, error: Error) -> Error {
        self.kill(error);
        self.stopping()
    }
}

/// A worker with decoded arguments.
struct Prepared {
    work: Work,
    /// The arguments for the log, if level `trace` is enabled.
    shown: Option<String>,
}

/// Formats the arguments of a call for the log: sensitive ones redacted, and the text shortened.
fn shown(method: &MethodHandle, arguments: &Arguments) -> String {
    let values = redact(method.params, arguments, method.sensitive);
    let mut shown = Value::Object(values).to_string();
    shorten(&mut shown);
    shown
}
