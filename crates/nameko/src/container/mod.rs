//! The container of a service, which owns the extensions and workers and manages their life cycle.

mod attachments;
mod builder;
mod guarded;
mod lifecycle;
mod limits;
mod messages;
mod method;
mod providers;
mod service_dispatch;
mod shared;
mod state;
mod teardown;
mod typed_dispatch;
mod worker;
#[cfg(feature = "cli")]
mod worker_fields;
mod worker_observer;
mod worker_span;
mod workers;

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock, Weak},
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use crate::{
    config::Config,
    error::{Error, Result},
    extension::DynEntrypoint,
    layer::Layers,
    protocol::Fault,
    tasks::{TaskHandle, Tasks},
    watchdog::Watch,
};

pub use builder::ContainerBuilder;
#[cfg(all(feature = "cli", unix))]
pub(crate) use lifecycle::EXTENSIONS_STOP_LIMIT;
pub use limits::{MAX_WORKERS, STOP_TIMEOUT};
pub use method::MethodHandle;

pub(crate) use attachments::Attachments;
pub(crate) use messages::is_own_thread;
pub(crate) use providers::{BoundProvider, Declared, Provide, Replacements};
#[cfg(feature = "cli")]
pub(crate) use worker_fields::WorkerFields;
#[cfg(feature = "testing")]
pub(crate) use worker_observer::WorkerObserver;

use guarded::Guarded;
use limits::Limits;
use service_dispatch::ServiceDispatch;
use shared::SharedExtensions;
use state::State;
use worker_observer::WorkerObservers;

/// A running instance of a service. Cheap to clone; clones share the same container.
///
/// ```no_run
/// # use nameko::prelude::*;
/// # #[derive(Dependencies)] struct Greeter;
/// # #[service("greeter")] impl Greeter {}
/// # async fn run() -> nameko::Result<()> {
/// let container = Container::new::<Greeter>(Config::default())?;
/// container.start().await?; // waits for an unavailable broker
/// container.stop().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

struct Inner {
    service: Arc<str>,
    config: Config,
    limits: Limits,
    /// One permit per concurrent worker. Closed after the workers have ended.
    slots: Semaphore,
    dispatch: Box<dyn ServiceDispatch>,
    entrypoints: Vec<Mounted>,
    providers: Vec<BoundProvider>,
    layers: Layers,
    /// Created on demand during the setup of extensions.
    shared: SharedExtensions,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "no extension has settings")
    )]
    attachments: Attachments,
    /// Observers of workers, used by test waiters.
    observers: WorkerObservers,
    /// Tasks of workers. `stop` waits for them before stopping providers.
    workers: Tasks,
    /// Tasks that tear down aborted workers. `stop` waits for them before stopping providers.
    teardowns: Tasks,
    /// Tasks of extensions. Aborted last.
    managed: Tasks,
    state: watch::Sender<State>,
    /// The reason of a kill.
    killed_by: OnceLock<Arc<Error>>,
    /// The runtime that started the container, for teardowns of workers dropped outside of it.
    runtime: OnceLock<Handle>,
    /// Registers the methods with the watchdog; set by the first worker.
    watch: OnceLock<Arc<Watch>>,
}

/// An entrypoint with its method.
struct Mounted {
    entrypoint: Arc<dyn DynEntrypoint>,
    method: MethodHandle,
    /// The entrypoint's [`describe`](Entrypoint::describe).
    label: Arc<str>,
}

impl Mounted {
    fn name(&self) -> String {
        format!(
            "entrypoint `{}` of the method `{}`",
            self.label, self.method.name
        )
    }
}

impl Container {
    fn assemble(
        service: &str,
        config: Config,
        attachments: Attachments,
        dispatch: impl ServiceDispatch + 'static,
        entrypoints: Vec<Arc<dyn DynEntrypoint>>,
        providers: Vec<BoundProvider>,
        layers: Layers,
    ) -> Result<Self> {
        let limits = Limits::new(&config)?;
        let mounted = |(entrypoint, method): (Arc<dyn DynEntrypoint>, MethodHandle)| Mounted {
            label: entrypoint.describe().into(),
            entrypoint,
            method,
        };
        let inner = Inner {
            service: service.into(),
            config,
            limits,
            slots: Semaphore::new(limits.max_workers),
            entrypoints: entrypoints
                .into_iter()
                .zip(dispatch.methods())
                .map(mounted)
                .collect(),
            dispatch: Box::new(dispatch),
            providers,
            layers,
            shared: SharedExtensions::default(),
            attachments,
            observers: WorkerObservers::default(),
            workers: Tasks::default(),
            teardowns: Tasks::default(),
            managed: Tasks::default(),
            state: watch::Sender::new(State::New),
            killed_by: OnceLock::new(),
            runtime: OnceLock::new(),
            watch: OnceLock::new(),
        };
        let container = Self {
            inner: Arc::new(inner),
        };
        for mounted in &container.inner.entrypoints {
            let checked = mounted.entrypoint.check(&container, &mounted.method);
            checked.map_err(|error| container.with_extension_context(error, || mounted.name()))?;
        }
        Ok(container)
    }

    /// Returns a weak handle, for objects owned by the container.
    pub fn downgrade(&self) -> WeakContainer {
        WeakContainer(Arc::downgrade(&self.inner))
    }

    /// Returns the name of the service.
    pub fn service_name(&self) -> &str {
        &self.inner.service
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns the maximum number of concurrent workers.
    pub fn max_workers(&self) -> usize {
        self.inner.limits.max_workers
    }

    /// Returns the maximum number of unacknowledged messages per consumer. Config key:
    /// `prefetch_count`; default: `max_workers`.
    pub fn prefetch_count(&self) -> u16 {
        self.inner.limits.prefetch
    }

    /// Iterates over the entrypoints as (description, method name): `("rpc", "hello")`.
    pub fn entrypoints(&self) -> impl Iterator<Item = (String, &'static str)> + '_ {
        let entrypoints = self.inner.entrypoints.iter();
        entrypoints.map(|mounted| (mounted.label.to_string(), mounted.method.name))
    }

    /// Iterates over the entrypoints of type `E` of the method `name`, each with its own method
    /// handle.
    #[cfg(all(feature = "http", feature = "testing"))]
    pub(crate) fn entrypoints_of<E: crate::extension::Entrypoint>(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&E, &MethodHandle)> {
        let entrypoints = self.inner.entrypoints.iter();
        entrypoints
            .filter(move |mounted| mounted.method.name == name)
            .filter_map(|mounted| {
                Some((mounted.entrypoint.as_any().downcast_ref()?, &mounted.method))
            })
    }

    /// Returns the method `name`, with the handle of its first entrypoint.
    ///
    /// # Errors
    /// [`Error::ExtensionNotFound`] if no entrypoint has a method of that name; lists the existing
    /// ones.
    pub fn method(&self, name: &str) -> Result<MethodHandle> {
        let methods = || self.inner.entrypoints.iter().map(|mounted| &mounted.method);
        methods()
            .find(|method| method.name == name)
            .cloned()
            .ok_or_else(|| {
                let known = methods().map(|method| method.name);
                Error::extension_not_found(self.service_name(), "entrypoint", name, known)
            })
    }

    /// Spawns a task that counts as work: [`stop`](Self::stop) waits for it like for a worker, and
    /// a kill aborts it. A panic in it kills the container.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.inner.workers.spawn(self.guarded(task))
    }

    /// Returns whether a provider or an observer may look at the outcomes of workers.
    #[cfg(feature = "http")]
    pub(crate) fn observes_outcomes(&self) -> bool {
        !self.inner.providers.is_empty() || self.inner.observers.any()
    }

    /// Like [`spawn`](Self::spawn), but polls the task first: one that completes at once needs
    /// neither a task of the runtime nor another thread.
    #[cfg(feature = "http")]
    pub(crate) fn poll_or_spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> TaskHandle {
        self.inner.workers.poll_or_spawn(self.guarded(task))
    }

    /// Returns a task whose panic kills the container.
    fn guarded(&self, task: impl Future<Output = ()> + Send + 'static) -> Guarded {
        Guarded {
            // Boxed, since task futures have some kilobytes, and spawning moves them several times.
            task: Box::pin(task),
            container: self.downgrade(),
        }
    }

    /// Spawns a background task for the lifetime of the container: [`stop`](Self::stop) does not
    /// wait for it, but aborts it after all extensions have stopped. To abort it earlier, keep the
    /// handle.
    ///
    /// The task may return early. If it fails or panics, the container is killed, as in Nameko, and
    /// [`wait`](Self::wait) returns [`Error::Task`] with the name and the error of the task as the
    /// reason.
    ///
    /// ```
    /// # use nameko::{Container, Result};
    /// # async fn sweep() -> Result<()> { Ok(()) }
    /// # fn setup(container: &Container) {
    /// container.spawn_managed("sweeper", async {
    ///     loop {
    ///         tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    ///         sweep().await?;
    ///     }
    ///     # #[allow(unreachable_code)]
    ///     Ok::<(), nameko::Error>(())
    /// });
    /// # }
    /// ```
    pub fn spawn_managed<E>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> TaskHandle
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (container, name) = (self.downgrade(), name.into());
        let task = Box::pin(AssertUnwindSafe(task).catch_unwind());
        self.inner.managed.spawn(async move {
            let error = match task.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Error::from_error(error),
                Err(panic) => Error::raised(Fault::panic(panic.as_ref())),
            };
            if let Some(container) = container.upgrade() {
                container.kill(Error::Task {
                    name,
                    reason: Box::new(error),
                });
            }
        })
    }

    /// Notifies `observer` of the end of every worker, until it is dropped.
    #[cfg(feature = "testing")]
    pub(crate) fn observe_workers(&self, observer: &Arc<impl WorkerObserver + 'static>) {
        self.inner.observers.add(observer);
    }

    fn stopping(&self) -> Error {
        Error::ContainerStopping(self.service_name().to_owned())
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<Container [{}] {:?}>",
            self.service_name(),
            *self.inner.state.borrow()
        )
    }
}

/// A weak handle to a [`Container`]. Objects owned by the container (entrypoints, providers,
/// consumer callbacks) hold it instead of a [`Container`], to avoid a reference cycle.
#[derive(Clone)]
pub struct WeakContainer(Weak<Inner>);

impl WeakContainer {
    /// Returns the container unless it was dropped.
    pub fn upgrade(&self) -> Option<Container> {
        self.0.upgrade().map(|inner| Container { inner })
    }
}

impl fmt::Debug for WeakContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(container) => container.fmt(f),
            None => f.write_str("<Container gone>"),
        }
    }
}
