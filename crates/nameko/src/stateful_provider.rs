//! Dependency providers with a state per worker.

use std::future::Future;

use crate::{
    container::Container,
    error::Result,
    extension::{DependencyProvider, NoHook},
    reply::Outcome,
    worker::WorkerContext,
};

/// A [`DependencyProvider`] with a state per worker, such as a transaction or a borrowed
/// connection.
///
/// `get_dependency` creates the state together with the dependency. Each later hook of the same
/// worker receives it, and [`worker_teardown`](Self::worker_teardown), which runs for every worker,
/// takes it. Hooks run in the order and with the failure rules of `DependencyProvider`.
///
/// ```
/// use std::sync::Mutex;
///
/// use nameko::{Outcome, StatefulProvider, WorkerEnd, prelude::*};
///
/// /// Lends each worker one of a fixed number of licenses.
/// struct Licenses(Mutex<Vec<u32>>);
///
/// impl StatefulProvider for Licenses {
///     type Dependency = u32;
///     type State = u32;
///
///     async fn get_dependency(&self, _: &WorkerContext) -> Result<(u32, u32)> {
///         let license = self.0.lock().unwrap().pop();
///         let license = license.ok_or_else(|| Error::raise("NoLicense", "all are in use"))?;
///         Ok((license, license))
///     }
///
///     async fn worker_teardown(
///         &self,
///         _: &WorkerContext,
///         license: u32,
///         _: WorkerEnd<'_>,
///     ) -> Result<()> {
///         self.0.lock().unwrap().push(license);
///         Ok(())
///     }
/// }
///
/// #[derive(Dependencies)]
/// struct Renderer {
///     #[dependency(Licenses(Mutex::new(vec![1, 2, 3])))]
///     license: u32,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not provide a dependency with a state",
    label = "this type must implement `StatefulProvider`"
)]
pub trait StatefulProvider: Send + Sync + 'static {
    /// Type of the injected field.
    type Dependency: Send + 'static;
    /// Type of the state of a worker.
    type State: Send + 'static;

    /// Called once, before any extension starts.
    fn setup(&self, container: &Container) -> impl Future<Output = Result<()>> + Send {
        let _ = container;
        async { Ok(()) }
    }

    /// Called once, after the setup of all extensions.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops, after the teardown of the last worker. Cancelled after ten
    /// seconds.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}

    /// Returns the dependency and the state of a worker.
    fn get_dependency(
        &self,
        ctx: &WorkerContext,
    ) -> impl Future<Output = Result<(Self::Dependency, Self::State)>> + Send;

    /// Called before the method runs, when all dependencies were injected.
    fn worker_setup(
        &self,
        ctx: &WorkerContext,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, state);
        NoHook
    }

    /// Called with the outcome of the method, before the reply is sent and the message is
    /// acknowledged. May replace the outcome; providers to the right receive the new one.
    ///
    /// The injected value has been dropped, unless the method kept a clone of it.
    ///
    /// # Errors
    /// The error replaces the outcome.
    fn before_reply(
        &self,
        ctx: &WorkerContext,
        state: &mut Self::State,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, state, outcome);
        NoHook
    }

    /// Called with the outcome of the worker, after the reply was sent.
    fn worker_result(
        &self,
        ctx: &WorkerContext,
        state: &mut Self::State,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, state, outcome);
        NoHook
    }

    /// Called last for every worker, also if it was aborted by a timeout, a stop or a kill.
    /// Cancelled after ten seconds.
    fn worker_teardown(
        &self,
        ctx: &WorkerContext,
        state: Self::State,
        end: WorkerEnd<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, state, end);
        NoHook
    }
}

/// The end of a worker, for [`StatefulProvider::worker_teardown`].
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum WorkerEnd<'a> {
    /// The worker ran to its end: `before_reply` was called, and the outcome was sent.
    Completed(&'a Outcome),
    /// The worker was dropped before its end: by `WEB_SERVER_TIMEOUT`, a stop past `stop_timeout`,
    /// a [`TaskHandle::abort`](crate::TaskHandle::abort) or a layer.
    Cancelled,
    /// The container was killed before the end of the worker.
    Killed,
}

impl std::fmt::Debug for WorkerEnd<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Completed(Ok(_)) => "Completed(Ok)",
            Self::Completed(Err(_)) => "Completed(Err)",
            Self::Cancelled => "Cancelled",
            Self::Killed => "Killed",
        })
    }
}

/// A type for `#[dependency(...)]`: any [`DependencyProvider`] or [`StatefulProvider`].
///
/// `Kind` tells the two apart and is inferred. A type implements one of the two traits, not both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not provide a dependency",
    label = "the expression in `#[dependency(...)]` must implement `DependencyProvider` or `StatefulProvider`"
)]
pub trait Provider<Kind>: Send + Sync + 'static {
    /// Type of the injected field.
    type Dependency: Send + 'static;
    #[doc(hidden)]
    type Stateful: StatefulProvider<Dependency = Self::Dependency>;

    #[doc(hidden)]
    fn into_stateful(self) -> Self::Stateful;
}

/// The kind of a [`DependencyProvider`].
#[derive(Debug)]
pub enum Stateless {}

/// The kind of a [`StatefulProvider`].
#[derive(Debug)]
pub enum Stateful {}

impl<P: DependencyProvider> Provider<Stateless> for P {
    type Dependency = P::Dependency;
    type Stateful = WithoutState<P>;

    fn into_stateful(self) -> WithoutState<P> {
        WithoutState(self)
    }
}

impl<P: StatefulProvider> Provider<Stateful> for P {
    type Dependency = P::Dependency;
    type Stateful = Self;

    fn into_stateful(self) -> Self {
        self
    }
}

/// A [`DependencyProvider`] as a [`StatefulProvider`].
#[derive(Debug)]
pub struct WithoutState<P>(P);

impl<P: DependencyProvider> StatefulProvider for WithoutState<P> {
    type Dependency = P::Dependency;
    type State = ();

    fn setup(&self, container: &Container) -> impl Future<Output = Result<()>> + Send {
        self.0.setup(container)
    }

    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        self.0.start()
    }

    fn stop(&self) -> impl Future<Output = ()> + Send {
        self.0.stop()
    }

    fn kill(&self) {
        self.0.kill();
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<(P::Dependency, ())> {
        Ok((self.0.get_dependency(ctx).await?, ()))
    }

    fn worker_setup(
        &self,
        ctx: &WorkerContext,
        (): &mut (),
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.worker_setup(ctx)
    }

    fn before_reply(
        &self,
        ctx: &WorkerContext,
        (): &mut (),
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.before_reply(ctx, outcome)
    }

    fn worker_result(
        &self,
        ctx: &WorkerContext,
        (): &mut (),
        outcome: &Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.worker_result(ctx, outcome)
    }

    fn worker_teardown(
        &self,
        ctx: &WorkerContext,
        (): (),
        _: WorkerEnd<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.worker_teardown(ctx)
    }
}
