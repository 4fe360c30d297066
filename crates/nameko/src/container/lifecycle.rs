//! Start, stop and kill.
//!
//! Start order: set up providers, set up entrypoints, start providers, start entrypoints, start
//! shared extensions (the consuming connection, the web server). Stop order: entrypoints, running
//! workers, providers, shared extensions, managed tasks.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{join_all, try_join_all},
};
use tokio::{runtime::Handle, time::timeout};

use super::{Container, state::State};
use crate::{
    error::{Error, Result},
    error_chain::ErrorChain,
    protocol::Fault,
};

/// Timeout for stopping all extensions of one kind, after the workers have ended.
const EXTENSIONS_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of a stop after the workers have ended: providers, then shared extensions.
#[cfg(all(feature = "cli", unix))]
pub(crate) const EXTENSIONS_STOP_LIMIT: Duration = Duration::from_secs(20);
/// Time until aborted workers must be gone. A worker that blocks its thread cannot be aborted.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

impl Container {
    /// Sets up and starts all extensions. Returns when the service accepts calls; waits for an
    /// unavailable broker.
    ///
    /// # Errors
    /// [`Error::Extension`] if a `setup` or `start` failed, with the name of the extension and the
    /// reason; the container is ended then. [`Error::Killed`] if the container is killed meanwhile,
    /// with the reason. [`Error::ContainerStopping`] if it is stopped meanwhile or has ended.
    /// [`Error::Raised`] with a `ContainerError` if it was started before: a container starts once.
    pub async fn start(&self) -> Result<()> {
        let first = self.inner.state.send_if_modified(|state| {
            let first = *state == State::New;
            if first {
                *state = State::Started;
            }
            first
        });
        if !first {
            return Err(match *self.inner.state.borrow() {
                State::Started => Error::raise(
                    "ContainerError",
                    format!(
                        "{} was started already: a container starts once",
                        self.service_name()
                    ),
                ),
                _ => self.stopping(),
            });
        }
        if let Ok(runtime) = Handle::try_current() {
            let _ = self.inner.runtime.set(runtime);
        }
        let mut state = self.inner.state.subscribe();
        let result = tokio::select! {
            biased;
            _ = state.wait_for(|state| *state > State::Started) => Err(self.stopping()),
            result = self.start_extensions() => result,
        };
        if result.is_ok() {
            return result;
        }
        if *self.inner.state.borrow() > State::Started {
            return Err(self.killed().unwrap_or_else(|| self.stopping()));
        }
        self.end();
        result
    }

    async fn start_extensions(&self) -> Result<()> {
        let inner = &self.inner;
        let (providers, entrypoints) = (&inner.providers, &inner.entrypoints);
        let dependency = |field: &str| format!("dependency `{field}`");
        try_join_all(
            providers
                .iter()
                .map(|bound| self.begin(bound.provider.setup(self), || dependency(&bound.field))),
        )
        .await?;
        // In sequence, so that shared extensions are created in the order of the methods.
        for mounted in entrypoints {
            let setup = mounted.entrypoint.setup(self, mounted.method.clone());
            self.begin(setup, || mounted.name()).await?;
        }
        for shared in inner.shared.known() {
            self.begin(shared.extension.prepare(), || {
                format!("shared extension `{}`", shared.name)
            })
            .await?;
        }
        // Afterwards the extensions have read their keys. Yields, so that those of the other
        // services of a runner have too.
        tokio::task::yield_now().await;
        self.config().log_warnings();
        try_join_all(
            providers
                .iter()
                .map(|bound| self.begin(bound.provider.start(), || dependency(&bound.field))),
        )
        .await?;
        try_join_all(
            entrypoints
                .iter()
                .map(|mounted| self.begin(mounted.entrypoint.start(), || mounted.name())),
        )
        .await?;
        for shared in inner.shared.started() {
            self.begin(shared.extension.start(), || {
                format!("shared extension `{}`", shared.name)
            })
            .await?;
        }
        Ok(())
    }

    /// Runs one step of the start. Errors and panics are returned with the name of the extension.
    async fn begin(
        &self,
        step: impl Future<Output = Result<()>>,
        extension: impl FnOnce() -> String,
    ) -> Result<()> {
        let reason = match AssertUnwindSafe(step).catch_unwind().await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => Error::raised(Fault::panic(panic.as_ref())),
        };
        Err(self.with_extension_context(reason, extension))
    }

    /// Adds the name of the extension to its error.
    pub(super) fn with_extension_context(
        &self,
        reason: Error,
        extension: impl FnOnce() -> String,
    ) -> Error {
        // These errors are complete without it.
        if matches!(reason, Error::Config(_) | Error::ContainerStopping(_)) {
            return reason;
        }
        Error::Extension {
            service: self.service_name().to_owned(),
            extension: extension(),
            reason: Box::new(reason),
        }
    }

    /// Stops gracefully: accepts no more work, waits for running workers, and stops the extensions.
    ///
    /// Entrypoints and workers share `stop_timeout` (config key, seconds, default 30). Workers that
    /// exceed it are aborted, and their messages are requeued. The teardown of aborted workers,
    /// then providers, and then shared extensions have ten seconds each. Cancel-safe: runs to
    /// completion even if the future is dropped.
    pub async fn stop(&self) {
        let first = self.inner.state.send_if_modified(|state| {
            let first = *state < State::Stopping;
            if first {
                *state = State::Stopping;
            }
            first
        });
        if first {
            // In its own task, since the caller may be cancelled, or be a worker that is aborted.
            // Ends with the container.
            let container = self.clone();
            tokio::spawn(async move { container.stop_in_order().await });
        } else {
            tracing::debug!(service = self.service_name(), "already stopped");
        }
        self.ended().await;
    }

    async fn stop_in_order(&self) {
        let inner = &self.inner;
        let mut state = inner.state.subscribe();
        let steps = async {
            let entrypoints = inner
                .entrypoints
                .iter()
                .map(|mounted| mounted.entrypoint.stop());
            let begun = Instant::now();
            let entrypoints = self
                .stop_all("entrypoints", inner.limits.stop_timeout, entrypoints)
                .await;
            self.drain(inner.limits.stop_timeout.saturating_sub(begun.elapsed()))
                .await;
            self.finish_teardowns().await;
            let providers = inner.providers.iter().map(|bound| bound.provider.stop());
            let providers = self
                .stop_all("dependency providers", EXTENSIONS_STOP_TIMEOUT, providers)
                .await;
            let shared = inner.shared.ended();
            let shared = shared.iter().map(|shared| shared.extension.stop());
            let shared = self
                .stop_all("shared extensions", EXTENSIONS_STOP_TIMEOUT, shared)
                .await;
            inner.managed.abort();
            let _ = timeout(DROP_TIMEOUT, inner.managed.finished()).await;
            entrypoints.or(providers).or(shared)
        };
        tokio::select! {
            panicked = steps => match panicked {
                None => self.end(),
                Some(fault) => self.kill(Error::raised(fault)),
            },
            _ = state.wait_for(|state| *state == State::Ended) => {}
        }
    }

    /// Stops extensions concurrently. Returns the first panic, after the others have stopped.
    async fn stop_all(
        &self,
        kind: &str,
        limit: Duration,
        stops: impl Iterator<Item = impl Future<Output = ()>>,
    ) -> Option<Fault> {
        let stops = stops.map(|stop| AssertUnwindSafe(stop).catch_unwind());
        match timeout(limit, join_all(stops)).await {
            Ok(stopped) => {
                let mut panics = stopped.into_iter().filter_map(std::result::Result::err);
                panics.next().map(|panic| Fault::panic(panic.as_ref()))
            }
            Err(_) => {
                tracing::warn!(
                    service = self.service_name(),
                    "{kind} have not stopped after {limit:?}; check that the services they connect to respond",
                );
                None
            }
        }
    }

    /// Waits for running workers and aborts them after `limit`, so that none uses a stopped
    /// provider.
    async fn drain(&self, limit: Duration) {
        let workers = &self.inner.workers;
        if timeout(limit, workers.finished()).await.is_ok() {
            self.inner.slots.close();
            return;
        }
        self.inner.slots.close();
        tracing::warn!(
            service = self.service_name(),
            workers = workers.running(),
            "workers still running after {:?} (stop_timeout) are aborted; their messages are requeued",
            self.inner.limits.stop_timeout,
        );
        workers.abort();
        if timeout(DROP_TIMEOUT, workers.finished()).await.is_err() {
            tracing::warn!(
                service = self.service_name(),
                workers = workers.running(),
                "aborted workers still block their threads; use `spawn_blocking` for blocking code",
            );
        }
    }

    /// Waits for the teardown of aborted workers.
    async fn finish_teardowns(&self) {
        let teardowns = &self.inner.teardowns;
        if timeout(EXTENSIONS_STOP_TIMEOUT, teardowns.finished())
            .await
            .is_err()
        {
            tracing::warn!(
                service = self.service_name(),
                workers = teardowns.running(),
                "`worker_teardown` of aborted workers has not completed after {EXTENSIONS_STOP_TIMEOUT:?}",
            );
            teardowns.abort();
        }
    }

    /// Ends immediately: aborts workers, and their messages are requeued. [`wait`](Self::wait)
    /// returns the reason.
    pub fn kill(&self, reason: Error) {
        if *self.inner.state.borrow() == State::Ended {
            return;
        }
        let chain = ErrorChain(&reason);
        tracing::error!(service = self.service_name(), reason = %chain, "container killed");
        let _ = self.inner.killed_by.set(Arc::new(reason));
        self.end();
    }

    /// Aborts all tasks and kills the extensions, unless already stopped.
    fn end(&self) {
        let inner = &self.inner;
        inner.slots.close();
        inner.workers.abort();
        inner.managed.abort();
        match inner.state.send_replace(State::Ended) {
            // Ended concurrently.
            State::Ended => return,
            State::Stopping if inner.killed_by.get().is_none() => return,
            _ => {}
        }
        let kill = |hook: &dyn Fn()| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
                let fault = Fault::panic(panic.as_ref());
                tracing::error!(service = self.service_name(), "`kill` panicked: {fault}");
            }
        };
        inner
            .entrypoints
            .iter()
            .for_each(|mounted| kill(&|| mounted.entrypoint.kill()));
        inner
            .providers
            .iter()
            .for_each(|bound| kill(&|| bound.provider.kill()));
        let shared = inner.shared.ended();
        shared
            .iter()
            .for_each(|shared| kill(&|| shared.extension.kill()));
    }

    /// Waits until the container has stopped. After a kill, waits for the teardown of its workers.
    ///
    /// # Errors
    /// [`Error::Killed`] if it was killed.
    pub async fn wait(&self) -> Result<()> {
        self.ended().await;
        self.killed().map_or(Ok(()), Err)
    }

    /// Returns `true` once `start` was called, or the container has ended.
    #[cfg(feature = "testing")]
    pub(crate) fn was_started(&self) -> bool {
        *self.inner.state.borrow() != State::New
    }

    /// Returns [`Error::Killed`] if the container was killed.
    pub(crate) fn killed(&self) -> Option<Error> {
        let reason = self.inner.killed_by.get()?;
        Some(Error::Killed {
            service: self.service_name().to_owned(),
            reason: reason.clone(),
        })
    }

    async fn ended(&self) {
        // Cannot fail: `inner` owns the sender.
        let _ = self
            .inner
            .state
            .subscribe()
            .wait_for(|state| *state == State::Ended)
            .await;
        // At once after a stop.
        let _ = timeout(DROP_TIMEOUT, self.inner.workers.finished()).await;
        self.finish_teardowns().await;
    }
}
