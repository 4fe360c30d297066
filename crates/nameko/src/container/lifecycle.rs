//! Start, stop and kill.
//!
//! Start: providers are set up, then entrypoints, then providers are started, then entrypoints, then what they share (the
//! connection that consumes, the web server). Stop: entrypoints, then the running workers end, then providers, then what
//! they share, then managed tasks.

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
use tokio::time::timeout;

use super::{Container, state::State};
use crate::{
    error::{Error, Result},
    protocol::Fault,
};

/// How long the extensions of one kind have to stop, once workers have ended.
const EXTENSIONS_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long dropped workers have to be gone: as long as one blocks its thread, it is not.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

impl Container {
    /// Sets up and starts every extension. Returns when the service can be called: while the broker is away, it waits.
    ///
    /// # Errors
    /// [`Error::Extension`] with what a `setup` or `start` failed with, and whose it was; the container is then dead.
    /// [`Error::Killed`] when it is killed meanwhile, with the reason; [`Error::ContainerStopping`] when it is stopped meanwhile, or
    /// has ended. A container starts once: starting it again is an error that says so.
    pub async fn start(&self) -> Result<()> {
        let first = self.inner.state.send_if_modified(|it| {
            let first = *it == State::New;
            if first {
                *it = State::Started;
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
        let mut state = self.inner.state.subscribe();
        let result = tokio::select! {
            biased;
            _ = state.wait_for(|it| *it > State::Started) => Err(self.stopping()),
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
                .map(|it| self.begin(it.provider.setup(self), || dependency(it.field))),
        )
        .await?;
        // One after the other, so that what they share is made in the order of the methods.
        for it in entrypoints {
            let setup = it.entrypoint.setup(self, it.method.clone());
            self.begin(setup, || it.name()).await?;
        }
        try_join_all(
            providers
                .iter()
                .map(|it| self.begin(it.provider.start(), || dependency(it.field))),
        )
        .await?;
        try_join_all(
            entrypoints
                .iter()
                .map(|it| self.begin(it.entrypoint.start(), || it.name())),
        )
        .await?;
        for it in inner.shared.started() {
            self.begin(it.extension.start(), || {
                format!("shared extension `{}`", it.name)
            })
            .await?;
        }
        Ok(())
    }

    /// One step of the start: an error says whose it is, and a panic is one.
    async fn begin(
        &self,
        step: impl Future<Output = Result<()>>,
        extension: impl FnOnce() -> String,
    ) -> Result<()> {
        let reason = match AssertUnwindSafe(step).catch_unwind().await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => Error::Raised(Fault::panic(panic.as_ref())),
        };
        Err(self.with_extension_context(reason, extension))
    }

    /// The error of an extension, with whose it is.
    pub(super) fn with_extension_context(
        &self,
        reason: Error,
        extension: impl FnOnce() -> String,
    ) -> Error {
        // These say what is wrong, and where, by themselves.
        if matches!(reason, Error::Config(_) | Error::ContainerStopping(_)) {
            return reason;
        }
        Error::Extension {
            service: self.service_name().to_owned(),
            extension: extension(),
            reason: Box::new(reason),
        }
    }

    /// Stops: no new work, running workers end, then the extensions. Waits for entrypoints and workers for at most
    /// `stop_timeout` (config key, seconds, default 30); workers that still run then are dropped, and their messages go back
    /// to the queue. Providers have ten seconds then, and so has what extensions share. Once begun it goes on, also when
    /// the caller no longer waits.
    pub async fn stop(&self) {
        let first = self.inner.state.send_if_modified(|it| {
            let first = *it < State::Stopping;
            if first {
                *it = State::Stopping;
            }
            first
        });
        if first {
            // A task of its own: the caller may give up, or be a worker that is dropped. It ends with the container.
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
            let entrypoints = inner.entrypoints.iter().map(|it| it.entrypoint.stop());
            let begun = Instant::now();
            let entrypoints = self
                .stop_all("entrypoints", inner.limits.stop_timeout, entrypoints)
                .await;
            self.drain(inner.limits.stop_timeout.saturating_sub(begun.elapsed()))
                .await;
            let providers = inner.providers.iter().map(|it| it.provider.stop());
            let providers = self
                .stop_all("dependency providers", EXTENSIONS_STOP_TIMEOUT, providers)
                .await;
            let shared = inner.shared.ended();
            let shared = shared.iter().map(|it| it.extension.stop());
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
                Some(fault) => self.kill(Error::Raised(fault)),
            },
            _ = state.wait_for(|it| *it == State::Ended) => {}
        }
    }

    /// Stops extensions side by side. One that panics does not keep the others from stopping.
    async fn stop_all(
        &self,
        what: &str,
        limit: Duration,
        stops: impl Iterator<Item = impl Future<Output = ()>>,
    ) -> Option<Fault> {
        let stops = stops.map(|it| AssertUnwindSafe(it).catch_unwind());
        match timeout(limit, join_all(stops)).await {
            Ok(stopped) => {
                let mut panics = stopped.into_iter().filter_map(std::result::Result::err);
                panics.next().map(|it| Fault::panic(it.as_ref()))
            }
            Err(_) => {
                tracing::warn!(
                    service = self.service_name(),
                    "{what} have not stopped after {limit:?}; does what they are connected to answer?",
                );
                None
            }
        }
    }

    /// The running workers end, or are dropped. Providers are stopped only when none is left.
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
            "workers still run after {:?} and are dropped; their messages go back to the queue",
            self.inner.limits.stop_timeout,
        );
        workers.abort();
        if timeout(DROP_TIMEOUT, workers.finished()).await.is_err() {
            tracing::warn!(
                service = self.service_name(),
                workers = workers.running(),
                "dropped workers still block their threads: use `spawn_blocking` for work that does not await",
            );
        }
    }

    /// Ends at once: workers are dropped, their messages go back to the queue. [`wait`](Self::wait) returns the reason.
    pub fn kill(&self, reason: Error) {
        if *self.inner.state.borrow() == State::Ended {
            return;
        }
        tracing::error!(service = self.service_name(), %reason, "container is killed");
        let _ = self.inner.killed_by.set(Arc::new(reason));
        self.end();
    }

    /// Whatever still runs is ended.
    fn end(&self) {
        let inner = &self.inner;
        inner.slots.close();
        inner.workers.abort();
        inner.managed.abort();
        match inner.state.send_replace(State::Ended) {
            // Somebody else has ended it at the same time.
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
            .for_each(|it| kill(&|| it.entrypoint.kill()));
        inner
            .providers
            .iter()
            .for_each(|it| kill(&|| it.provider.kill()));
        let shared = inner.shared.ended();
        shared.iter().for_each(|it| kill(&|| it.extension.kill()));
    }

    /// Returns when the container has stopped.
    ///
    /// # Errors
    /// [`Error::Killed`] when it was killed.
    pub async fn wait(&self) -> Result<()> {
        self.ended().await;
        self.killed().map_or(Ok(()), Err)
    }

    /// Whether somebody has begun to start it.
    pub(crate) fn was_started(&self) -> bool {
        *self.inner.state.borrow() != State::New
    }

    /// Why it was killed, if it was.
    pub(crate) fn killed(&self) -> Option<Error> {
        let reason = self.inner.killed_by.get()?;
        Some(Error::Killed {
            service: self.service_name().to_owned(),
            reason: reason.clone(),
        })
    }

    async fn ended(&self) {
        // The sender lives in `inner`, so waiting cannot fail.
        let _ = self
            .inner
            .state
            .subscribe()
            .wait_for(|it| *it == State::Ended)
            .await;
    }
}
