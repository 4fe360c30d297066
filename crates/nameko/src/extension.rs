//! What a container is extended with: dependency providers, entrypoints, and what they share.
//!
//! The built-in ones are written against these traits and use nothing else. [The guide](crate::guide::extensions) has
//! some that are not built in.

use std::{any::Any, future::Future};

use futures_util::future::BoxFuture;

use crate::{
    container::{Container, MethodHandle},
    error::Result,
    reply::Outcome,
    worker::WorkerContext,
};

/// Gives each worker a dependency, and hears of the container's and the workers' life.
///
/// One value lives as long as the container. All hooks are optional but [`get_dependency`](Self::get_dependency).
/// An error or a panic in `setup` or `start` makes the container's start fail, with the field's name. An error from
/// `get_dependency` is the call's outcome. An error from a `worker_*` hook kills the container, as in Nameko.
/// [The guide](crate::guide::extensions) has one for Redis.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
///
/// use nameko::prelude::*;
///
/// /// Numbers the calls of a service.
/// #[derive(Default)]
/// struct Numbered {
///     last: AtomicU64,
/// }
///
/// impl DependencyProvider for Numbered {
///     type Dependency = u64;
///
///     async fn get_dependency(&self, _: &WorkerContext) -> Result<u64> {
///         Ok(self.last.fetch_add(1, Ordering::Relaxed) + 1)
///     }
/// }
///
/// #[derive(Dependencies)]
/// struct Tickets {
///     #[dependency(Numbered::default())]
///     number: u64,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not provide a dependency",
    label = "the expression in `#[dependency(...)]` must implement `DependencyProvider`"
)]
pub trait DependencyProvider: Send + Sync + 'static {
    /// What is injected into each worker.
    type Dependency: Send + 'static;

    /// Called once, before anything starts.
    fn setup(&self, container: &Container) -> impl Future<Output = Result<()>> + Send {
        let _ = container;
        async { Ok(()) }
    }

    /// Called once, when every extension is set up.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops, after the last worker. It has ten seconds; what takes longer is dropped.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}

    /// The dependency for one worker.
    fn get_dependency(
        &self,
        ctx: &WorkerContext,
    ) -> impl Future<Output = Result<Self::Dependency>> + Send;

    /// Called before the method runs.
    fn worker_setup(&self, ctx: &WorkerContext) -> impl Future<Output = Result<()>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Called with what the worker ended with, after its reply was sent.
    fn worker_result(
        &self,
        ctx: &WorkerContext,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, outcome);
        async { Ok(()) }
    }

    /// Called last for each worker that came to its end. One that is dropped, by a kill or a time limit, is not told of.
    fn worker_teardown(&self, ctx: &WorkerContext) -> impl Future<Output = Result<()>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }
}

/// Starts workers: the reason a method runs. `#[entrypoint(EXPRESSION)]` on a method puts it there.
///
/// It lives as long as the container, which owns it: what it keeps of the container is a
/// [`WeakContainer`](crate::WeakContainer). Workers are started with [`Container::spawn_worker`] or
/// [`Container::run_worker`], tasks with [`Container::spawn_managed`]. [The guide](crate::guide::extensions) has one that
/// watches a folder.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no entrypoint",
    label = "the expression in `#[entrypoint(...)]` must implement `Entrypoint`"
)]
pub trait Entrypoint: Send + Sync + 'static {
    /// Called when the container is made: an error says that the entrypoint can never work as it is declared.
    ///
    /// # Errors
    /// [`Error::Declaration`](crate::Error::Declaration), for one; making the container fails with it.
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        let _ = (container, method);
        Ok(())
    }

    /// Called once with the method to run, before anything starts.
    fn setup(
        &self,
        container: &Container,
        method: MethodHandle,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Called once, when every extension is set up.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops. Once it returns, the entrypoint starts no more workers. Together with the
    /// workers it has `stop_timeout` seconds.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}

    /// What the entrypoint serves, in a few words: `rpc`, for example. Shown by `run`, in spans and in errors.
    fn describe(&self) -> String;
}

/// One per container, shared by the entrypoints and providers that ask for it with [`Container::shared`] in their `setup`.
pub trait SharedExtension: Any + Send + Sync + 'static {
    /// Called once, when entrypoints and providers have started.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops, after the dependency providers.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}
}

/// [`DependencyProvider`] without its type, as the container holds it.
pub(crate) trait DynProvider: Send + Sync {
    fn setup<'a>(&'a self, container: &'a Container) -> BoxFuture<'a, Result<()>>;
    fn start(&self) -> BoxFuture<'_, Result<()>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn kill(&self);
    fn worker_setup<'a>(&'a self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>>;
    fn worker_result<'a>(
        &'a self,
        ctx: &'a WorkerContext,
        outcome: &'a Outcome,
    ) -> BoxFuture<'a, Result<()>>;
    fn worker_teardown<'a>(&'a self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>>;
}

impl<P: DependencyProvider> DynProvider for P {
    fn setup<'a>(&'a self, container: &'a Container) -> BoxFuture<'a, Result<()>> {
        Box::pin(DependencyProvider::setup(self, container))
    }

    fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(DependencyProvider::start(self))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(DependencyProvider::stop(self))
    }

    fn kill(&self) {
        DependencyProvider::kill(self);
    }

    fn worker_setup<'a>(&'a self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>> {
        Box::pin(DependencyProvider::worker_setup(self, ctx))
    }

    fn worker_result<'a>(
        &'a self,
        ctx: &'a WorkerContext,
        outcome: &'a Outcome,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(DependencyProvider::worker_result(self, ctx, outcome))
    }

    fn worker_teardown<'a>(&'a self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>> {
        Box::pin(DependencyProvider::worker_teardown(self, ctx))
    }
}

/// [`Entrypoint`] without its type, as the container holds it.
pub(crate) trait DynEntrypoint: Send + Sync {
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()>;
    fn setup<'a>(
        &'a self,
        container: &'a Container,
        method: MethodHandle,
    ) -> BoxFuture<'a, Result<()>>;
    fn start(&self) -> BoxFuture<'_, Result<()>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn kill(&self);
    fn describe(&self) -> String;
    /// The entrypoint itself, for who knows its type.
    fn as_any(&self) -> &dyn Any;
}

impl<E: Entrypoint> DynEntrypoint for E {
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        Entrypoint::check(self, container, method)
    }

    fn setup<'a>(
        &'a self,
        container: &'a Container,
        method: MethodHandle,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(Entrypoint::setup(self, container, method))
    }

    fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(Entrypoint::start(self))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(Entrypoint::stop(self))
    }

    fn kill(&self) {
        Entrypoint::kill(self);
    }

    fn describe(&self) -> String {
        Entrypoint::describe(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// [`SharedExtension`] without its type, as the container holds it.
pub(crate) trait DynShared: Send + Sync {
    fn start(&self) -> BoxFuture<'_, Result<()>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn kill(&self);
}

impl<E: SharedExtension> DynShared for E {
    fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(SharedExtension::start(self))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(SharedExtension::stop(self))
    }

    fn kill(&self) {
        SharedExtension::kill(self);
    }
}
