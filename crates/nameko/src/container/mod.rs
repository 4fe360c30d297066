//! The container of one service: it owns the extensions and the workers, and runs their life cycle.

mod builder;
mod lifecycle;
mod limits;
mod method;
mod providers;
mod service_dispatch;
mod shared;
mod state;
mod typed_dispatch;
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
use tokio::sync::{Semaphore, watch};

use crate::{
    config::Config,
    error::{Error, Result},
    extension::{DynEntrypoint, Entrypoint},
    protocol::Fault,
    tasks::{TaskHandle, Tasks},
};

pub use builder::ContainerBuilder;
pub use limits::{MAX_WORKERS, STOP_TIMEOUT};
pub use method::MethodHandle;

pub(crate) use providers::{BoundProvider, Declared, Provide, Replacements};
pub(crate) use worker_observer::WorkerObserver;
pub(crate) use worker_span::Worker;

use limits::Limits;
use service_dispatch::ServiceDispatch;
use shared::SharedExtensions;
use state::State;
use worker_observer::WorkerObservers;

/// Runs one service. Cheap to clone; all clones are one container.
///
/// ```no_run
/// # use nameko::prelude::*;
/// # #[derive(Dependencies)] struct Greeter;
/// # #[service("greeter")] impl Greeter {}
/// # async fn run() -> nameko::Result<()> {
/// let container = Container::new::<Greeter>(Config::default())?;
/// container.start().await?; // waits for the broker where it is away
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
    /// One permit per worker that may run. Closed when the workers have ended.
    slots: Semaphore,
    dispatch: Box<dyn ServiceDispatch>,
    entrypoints: Vec<Mounted>,
    providers: Arc<[BoundProvider]>,
    /// Made on demand while extensions are set up.
    shared: SharedExtensions,
    /// Observers of workers: the waiters of tests.
    observers: WorkerObservers,
    /// Every worker. A stop waits for them, before providers are stopped.
    workers: Tasks,
    /// Every task of an extension. They end last.
    managed: Tasks,
    state: watch::Sender<State>,
    /// Why it was killed; set once.
    killed_by: OnceLock<Arc<Error>>,
}

/// An entrypoint and the method it runs.
struct Mounted {
    entrypoint: Arc<dyn DynEntrypoint>,
    method: MethodHandle,
    /// What it serves, in its own words.
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
        dispatch: impl ServiceDispatch + 'static,
        entrypoints: Vec<Arc<dyn DynEntrypoint>>,
        providers: Vec<BoundProvider>,
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
            providers: providers.into(),
            shared: SharedExtensions::default(),
            observers: WorkerObservers::default(),
            workers: Tasks::default(),
            managed: Tasks::default(),
            state: watch::Sender::new(State::New),
            killed_by: OnceLock::new(),
        };
        let container = Self {
            inner: Arc::new(inner),
        };
        for it in &container.inner.entrypoints {
            let checked = it.entrypoint.check(&container, &it.method);
            checked.map_err(|error| container.with_extension_context(error, || it.name()))?;
        }
        Ok(container)
    }

    /// What does not keep the container alive: for whatever the container owns itself.
    pub fn downgrade(&self) -> WeakContainer {
        WeakContainer(Arc::downgrade(&self.inner))
    }

    /// The service's name.
    pub fn service_name(&self) -> &str {
        &self.inner.service
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// How many workers run at a time.
    pub fn max_workers(&self) -> usize {
        self.inner.limits.max_workers
    }

    /// How many messages each consumer holds unacknowledged. Config key `prefetch_count`, by default `max_workers`.
    pub fn prefetch_count(&self) -> u16 {
        self.inner.limits.prefetch
    }

    /// Each entrypoint as (what it is, method name): `("rpc", "hello")`.
    pub fn entrypoints(&self) -> impl Iterator<Item = (String, &'static str)> + '_ {
        let entrypoints = self.inner.entrypoints.iter();
        entrypoints.map(|it| (it.label.to_string(), it.method.name))
    }

    /// The entrypoints of type `E` that run the method `name`, each with the method as it was given it.
    pub(crate) fn entrypoints_of<E: Entrypoint>(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&E, &MethodHandle)> {
        let entrypoints = self.inner.entrypoints.iter();
        entrypoints
            .filter(move |it| it.method.name == name)
            .filter_map(|it| Some((it.entrypoint.as_any().downcast_ref()?, &it.method)))
    }

    /// The method `name`, as its first entrypoint was given it.
    ///
    /// # Errors
    /// [`Error::ExtensionNotFound`] when no entrypoint runs a method of that name; it lists those that there are.
    pub fn method(&self, name: &str) -> Result<MethodHandle> {
        let methods = || self.inner.entrypoints.iter().map(|it| &it.method);
        methods()
            .find(|it| it.name == name)
            .cloned()
            .ok_or_else(|| {
                let known = methods().map(|it| it.name);
                Error::extension_not_found(self.service_name(), "entrypoint", name, known)
            })
    }

    /// Runs `task` as work of the container: [`stop`](Self::stop) waits for it as it waits for workers, a kill drops it.
    /// A panic in it kills the container.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let container = self.downgrade();
        // Boxed first, since tasks are some kilobytes large, and what is spawned is moved several times on its way.
        let task = Box::pin(AssertUnwindSafe(task).catch_unwind());
        self.inner.workers.spawn(async move {
            if let Err(panic) = task.await
                && let Some(container) = container.upgrade()
            {
                container.kill(Error::Raised(Fault::panic(panic.as_ref())));
            }
        })
    }

    /// Runs `task` as long as the container: nobody waits for it at a [`stop`](Self::stop), it is dropped when all
    /// extensions have stopped. An extension that wants it to end earlier keeps the handle.
    ///
    /// It may end by itself. When it fails or panics, the container is killed, as in Nameko:
    /// [`wait`](Self::wait) tells the task's name and its error.
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
                Err(panic) => Error::Raised(Fault::panic(panic.as_ref())),
            };
            if let Some(container) = container.upgrade() {
                container.kill(Error::Task {
                    name,
                    reason: Box::new(error),
                });
            }
        })
    }

    /// Notifies `observer` of every worker that ends, until it is dropped.
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

/// A [`Container`] that may be gone. What lives in a container (an entrypoint, a provider, a callback of a consumer)
/// holds this, so that it does not keep its own owner alive.
#[derive(Clone)]
pub struct WeakContainer(Weak<Inner>);

impl WeakContainer {
    /// The container, unless it is gone.
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
