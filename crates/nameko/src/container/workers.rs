//! Workers: one per call, from the arguments to the last hook.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    time::Instant,
};

use futures_util::future::poll_fn;
use serde_json::Value;
use tracing::Level;

use super::{
    Container,
    method::MethodHandle,
    service_dispatch::Work,
    worker::Worker,
    worker_span::{TARGET, WorkerSpan},
};
use crate::{
    amqp::Table,
    arguments::{Arguments, shorten},
    error::{Error, Result},
    layer::{Next, WorkerCall},
    protocol::Fault,
    redaction::{BoundValues, redact_bound},
    reply::Outcome,
    tasks::TaskHandle,
    watchdog::Watch,
    worker::WorkerContext,
};

impl Container {
    /// Runs a worker to completion in the calling task; waits while `max_workers` are busy.
    /// `handle_result` sends the reply: it receives the outcome after `before_reply` of the
    /// providers, and returns the one for `worker_result`, such as the error of a value that it
    /// cannot send.
    ///
    /// If the future is dropped before its end, the providers' `worker_teardown` runs in a task of
    /// the container.
    ///
    /// The [layers](crate::WorkerLayer) of the container run around the worker, after it has its
    /// slot and before the reply.
    ///
    /// Runs in a `tracing` span `worker` with the fields `service`, `method`, `entrypoint`,
    /// `call_id`, `parent` (the caller's call id), and at the end `outcome` (`ok`, or the class
    /// name of the error), `expected` and `duration_ms` (of the layers, the hooks before the reply
    /// and the method). Arguments are only logged at level `trace`, with sensitive ones redacted.
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
        let worker = self.run(method, work, context_data, handle_result);
        self.watch().worker(method.index, worker).await
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
                    let worker = container.watch().worker(method.index, worker);
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

    /// Returns the registration with the watchdog for methods that block.
    pub(super) fn watch(&self) -> &Watch {
        self.inner.watch.get_or_init(|| {
            let entrypoints = self.inner.entrypoints.iter();
            let methods = entrypoints.map(|mounted| mounted.method.name);
            Watch::new(self.inner.service.clone(), methods)
        })
    }

    fn prepare(&self, method: &MethodHandle, arguments: Arguments) -> Result<Prepared> {
        let is_logged = tracing::enabled!(target: TARGET, Level::TRACE);
        let is_shown = is_logged || !self.inner.layers.0.is_empty();
        let values = (is_shown && !arguments.has_origin())
            .then(|| BoundValues::new(method.params, &arguments));
        // The service's types deserialize the arguments. Their panic fails the call, like a panic
        // of the method.
        let prepare = AssertUnwindSafe(|| self.inner.dispatch.prepare(method.index, arguments));
        let work = catch_unwind(prepare)
            .unwrap_or_else(|panic| Err(Error::raised(Fault::panic(panic.as_ref()))))?;
        Ok(Prepared { work, values })
    }

    async fn run<F, Fut>(
        &self,
        method: &MethodHandle,
        Prepared { work, values }: Prepared,
        context_data: Table,
        handle_result: F,
    ) -> Result<()>
    where
        F: FnOnce(Outcome) -> Fut + Send,
        Fut: Future<Output = Outcome> + Send,
    {
        let inner = &self.inner;
        let slot = inner.slots.acquire().await.map_err(|_| self.stopping())?;
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
        let mut worker = Worker::new(self, ctx.clone(), slot);
        let steps = async {
            if let Some(values) = &values
                && tracing::enabled!(target: TARGET, Level::TRACE)
            {
                let arguments = shown(method, values);
                tracing::trace!(target: TARGET, arguments, "worker {ctx} begins");
            }
            let begun = Instant::now();
            let outcome = match inner.layers.0.as_slice() {
                [] => worker.run(work).await,
                layers => {
                    let call = WorkerCall {
                        ctx: &ctx,
                        method,
                        entrypoint: label.map_or("", AsRef::as_ref),
                        values: &values.unwrap_or_default(),
                    };
                    let next = Next::new(layers, call, || Box::pin(worker.run(work)));
                    Box::pin(next.run()).await
                }
            };
            span.end(&ctx, method, &outcome, begun.elapsed());
            if let Some(fatal) = worker.take_fatal() {
                self.kill_if_fatal(fatal);
                return Err(self.stopping());
            }
            let outcome = handle_result(outcome).await;
            worker.finish(outcome).await;
            Ok(())
        };
        let mut steps = pin!(steps);
        poll_fn(|cx| span.in_scope(|| steps.as_mut().poll(cx))).await
    }
}

/// A worker with decoded arguments.
struct Prepared {
    work: Work,
    /// The arguments for layers and the log, if one of them needs them.
    values: Option<BoundValues>,
}

/// Formats the arguments of a call for the log: sensitive ones redacted, and the text shortened.
fn shown(method: &MethodHandle, values: &BoundValues) -> String {
    let values = redact_bound(values, method.sensitive);
    let mut shown = Value::Object(values).to_string();
    shorten(&mut shown);
    shown
}
