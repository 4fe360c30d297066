//! Extensions of a container: dependency providers, entrypoints, and shared extensions.
//!
//! The built-in extensions use only these traits. See [the guide](crate::guide::extensions) for
//! custom ones.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use crate::{
    container::{Container, MethodHandle},
    error::Result,
    reply::Outcome,
    stateful_provider::StatefulProvider,
    worker::WorkerContext,
};

/// Injects a dependency into every worker, with hooks for the life cycle of the container and of
/// workers.
///
/// A provider lives as long as its container. All hooks except
/// [`get_dependency`](Self::get_dependency) are optional. An error or panic in `setup` or `start`
/// fails the start of the container, with the name of the field. For each call:
///
/// | hook | runs | an error or panic |
/// |---|---|---|
/// | `get_dependency`, `worker_setup` | before the method | is the outcome of the call; the method does not run |
/// | `before_reply` | before the reply | replaces the outcome |
/// | `worker_result`, `worker_teardown` | after the reply | is logged |
///
/// The later hooks run for each provider whose `get_dependency` succeeded. An
/// [`Error::fatal`](crate::Error::fatal) of a hook also kills the container.
///
/// A provider that keeps something per worker, such as a transaction, is a
/// [`StatefulProvider`](crate::StatefulProvider). See [the guide](crate::guide::extensions) for a
/// Redis provider.
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
    label = "this type must implement `DependencyProvider`"
)]
pub trait DependencyProvider: Send + Sync + 'static {
    /// Type of the injected field.
    type Dependency: Send + 'static;

    /// Called once, before any extension starts.
    fn setup(&self, container: &Container) -> impl Future<Output = Result<()>> + Send {
        let _ = container;
        async { Ok(()) }
    }

    /// Called once, after the setup of all extensions.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops, after the last worker. Cancelled after ten seconds.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}

    /// Returns the dependency of a worker.
    fn get_dependency(
        &self,
        ctx: &WorkerContext,
    ) -> impl Future<Output = Result<Self::Dependency>> + Send;

    /// Called before the method runs, when all dependencies were injected.
    fn worker_setup(&self, ctx: &WorkerContext) -> impl Future<Output = Result<()>> + Send {
        let _ = ctx;
        NoHook
    }

    /// Called with the outcome of the method, before the reply is sent and the message is
    /// acknowledged. May replace the outcome; providers to the right receive the new one.
    ///
    /// # Errors
    /// The error replaces the outcome.
    fn before_reply(
        &self,
        ctx: &WorkerContext,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, outcome);
        NoHook
    }

    /// Called with the outcome of the worker, after the reply was sent.
    fn worker_result(
        &self,
        ctx: &WorkerContext,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (ctx, outcome);
        NoHook
    }

    /// Called last for every worker, also if it was aborted by a timeout, a stop or a kill.
    /// Cancelled after ten seconds.
    fn worker_teardown(&self, ctx: &WorkerContext) -> impl Future<Output = Result<()>> + Send {
        let _ = ctx;
        NoHook
    }
}

/// The future of a hook that is not overridden. Zero-sized, so that boxing it does not allocate.
pub(crate) struct NoHook;

impl Future for NoHook {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a method on external events. Declared by `#[entrypoint(EXPRESSION)]` on the method.
///
/// The container owns its entrypoints; an entrypoint should keep a
/// [`WeakContainer`](crate::WeakContainer) only. It starts workers with [`Container::spawn_worker`]
/// or [`Container::run_worker`], and tasks with [`Container::spawn_managed`]. See [the
/// guide](crate::guide::extensions) for an entrypoint that watches a folder.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entrypoint",
    label = "the expression in `#[entrypoint(...)]` must implement `Entrypoint`"
)]
pub trait Entrypoint: Send + Sync + 'static {
    /// Validates the declaration. Called when the container is created.
    ///
    /// # Errors
    /// Usually [`Error::Declaration`](crate::Error::Declaration), if the declaration is invalid;
    /// fails the creation of the container.
    fn check(&self, container: &Container, method: &MethodHandle) -> Result<()> {
        let _ = (container, method);
        Ok(())
    }

    /// Called once with the method to run, before any extension starts.
    fn setup(
        &self,
        container: &Container,
        method: MethodHandle,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Called once, after the setup of all extensions.
    fn start(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called when the container stops. Must return when the entrypoint starts no more workers. The
    /// timeout for this and for running workers is `stop_timeout`.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called when the container is killed. Must not block.
    fn kill(&self) {}

    /// Returns a short description, such as `rpc`, shown by `run`, in spans and in errors.
    fn describe(&self) -> String;
}

/// An extension with one instance per container, shared by entrypoints and providers. Created by
/// [`Container::shared`], called in their `setup`.
pub trait SharedExtension: Any + Send + Sync + 'static {
    /// Called once, after the setup of all extensions and before any of them starts. A start may
    /// wait long, for example for an unavailable broker.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

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

/// The container's view of a type-erased [`StatefulProvider`].
pub(crate) trait DynProvider: Send + Sync {
    fn setup<'a>(&'a self, container: &'a Container) -> BoxFuture<'a, Result<()>>;
    fn start(&self) -> BoxFuture<'_, Result<()>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn kill(&self);
}

impl<P: StatefulProvider> DynProvider for P {
    fn setup<'a>(&'a self, container: &'a Container) -> BoxFuture<'a, Result<()>> {
        Box::pin(StatefulProvider::setup(self, container))
    }

    fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(StatefulProvider::start(self))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(StatefulProvider::stop(self))
    }

    fn kill(&self) {
        StatefulProvider::kill(self);
    }
}

/// Type-erased [`Entrypoint`].
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
    /// Returns the entrypoint for downcasting.
    #[cfg(all(feature = "http", feature = "testing"))]
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

    #[cfg(all(feature = "http", feature = "testing"))]
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Type-erased [`SharedExtension`].
pub(crate) trait DynShared: Send + Sync {
    fn prepare(&self) -> BoxFuture<'_, Result<()>>;
    fn start(&self) -> BoxFuture<'_, Result<()>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn kill(&self);
}

impl<E: SharedExtension> DynShared for E {
    fn prepare(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(SharedExtension::prepare(self))
    }

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
