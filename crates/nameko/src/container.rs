//! The container of one service: it owns the extensions and the workers, and runs their life cycle.
//!
//! Start: every entrypoint and provider is set up, then all are started, then what they share (the connection that
//! consumes) is. Stop: entrypoints, then the running workers end, then providers, then what they share.

use std::{
    any::{Any, TypeId},
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all, try_join_all},
};
use tokio::sync::{Semaphore, watch};

use crate::{
    amqp::Table,
    arguments::{Arguments, Param},
    config::Config,
    error::{Error, Result},
    extension::{DynEntrypoint, DynProvider, DynShared, SharedExtension},
    protocol::{self, Fault},
    service::{Bindings, Entrypoints, Injector, Method, Outcome, Service},
    tasks::Tasks,
    worker::WorkerContext,
};

/// How many workers a container runs at a time, unless the config key `max_workers` says otherwise.
pub const MAX_WORKERS: usize = 10;
/// How long `stop` waits for running workers, unless the config key `stop_timeout` (seconds) says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// One permit per worker that may run.
    slots: Semaphore,
    host: Box<dyn Host>,
    entrypoints: Vec<Arc<dyn DynEntrypoint>>,
    providers: Arc<[Arc<dyn DynProvider>]>,
    /// Made on demand while extensions are set up, in the order in which they were asked for.
    shared: Mutex<Vec<SharedEntry>>,
    /// Every worker, and every task of an extension.
    tasks: Tasks,
    state: watch::Sender<State>,
    /// Why it was killed; set once.
    killed_by: OnceLock<Arc<Error>>,
}

struct SharedEntry {
    kind: TypeId,
    any: Arc<dyn Any + Send + Sync>,
    extension: Arc<dyn DynShared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum State {
    New,
    Started,
    Stopping,
    Ended,
}

/// The numbers of a container, from its configuration.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_workers: usize,
    prefetch: u16,
    parents: usize,
    stop_timeout: Duration,
}

impl Limits {
    fn new(config: &Config) -> Result<Self> {
        let max_workers = positive(config, "max_workers")?.unwrap_or(MAX_WORKERS);
        let prefetch = positive(config, "prefetch_count")?.unwrap_or(max_workers);
        Ok(Self {
            max_workers: max_workers.min(Semaphore::MAX_PERMITS),
            prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
            parents: positive(config, "parent_calls_tracked")?
                .unwrap_or(protocol::PARENT_CALLS_TRACKED),
            stop_timeout: match config.float("stop_timeout")? {
                None => STOP_TIMEOUT,
                Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| {
                    config.invalid("stop_timeout", "must be a number of seconds, 0 or more")
                })?,
            },
        })
    }
}

/// A number of something. As in Nameko, 0 and null mean the default.
fn positive(config: &Config, key: &str) -> Result<Option<usize>> {
    match config.int(key)? {
        None | Some(0) => Ok(None),
        Some(number) => match usize::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(config.invalid(key, "must not be negative").into()),
        },
    }
}

impl Container {
    /// A container for the service `S`. Nothing is opened before [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Config`] when a config key does not hold what it should.
    pub fn new<S: Service>(config: Config) -> Result<Self> {
        let limits = Limits::new(&config)?;
        let mut providers = Vec::new();
        let injector = S::bind(&mut Bindings::new(&mut providers));
        let (entrypoints, methods) = Entrypoints::<S>::of().list.into_iter().unzip();
        let inner = Inner {
            service: S::NAME.into(),
            config,
            limits,
            slots: Semaphore::new(limits.max_workers),
            host: Box::new(ServiceHost {
                injector: Arc::new(injector),
                methods,
            }),
            entrypoints,
            providers: providers.into(),
            shared: Mutex::default(),
            tasks: Tasks::default(),
            state: watch::Sender::new(State::New),
            killed_by: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn downgrade(&self) -> WeakContainer {
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
        self.inner
            .entrypoints
            .iter()
            .enumerate()
            .map(|(index, it)| (it.describe(), self.inner.host.method(index).0))
    }

    /// Sets up and starts every extension. Returns when the service can be called: while the broker is away, it waits.
    ///
    /// # Errors
    /// What a `setup` or `start` of an extension failed with; the container is then dead.
    /// [`Error::ContainerStopping`] when it was started before, or is stopped meanwhile.
    pub async fn start(&self) -> Result<()> {
        let first = self.inner.state.send_if_modified(|it| {
            let first = *it == State::New;
            if first {
                *it = State::Started;
            }
            first
        });
        if !first {
            return Err(self.stopping());
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
            return Err(self.stopping());
        }
        self.end();
        result
    }

    async fn start_extensions(&self) -> Result<()> {
        let inner = &self.inner;
        try_join_all(inner.providers.iter().map(|it| it.setup(self))).await?;
        for (index, entrypoint) in inner.entrypoints.iter().enumerate() {
            let (name, params) = inner.host.method(index);
            entrypoint
                .setup(
                    self,
                    MethodHandle {
                        index,
                        name,
                        params,
                    },
                )
                .await?;
        }
        try_join_all(inner.providers.iter().map(|it| it.start())).await?;
        try_join_all(inner.entrypoints.iter().map(|it| it.start())).await?;
        for extension in self.shared_extensions() {
            extension.start().await?;
        }
        Ok(())
    }

    /// Stops: no new work, running workers end, then the extensions. Waits for entrypoints and workers for at most
    /// `stop_timeout` (config key, seconds, default 30); workers that still run then are dropped, and their messages go back
    /// to the queue. Once begun it goes on, also when the caller no longer waits.
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
        let steps = async {
            self.drain().await;
            join_all(inner.providers.iter().map(|it| it.stop())).await;
            join_all(self.shared_extensions().iter().map(|it| it.stop())).await;
        };
        let mut state = inner.state.subscribe();
        tokio::select! {
            stopped = AssertUnwindSafe(steps).catch_unwind() => match stopped {
                Ok(()) => self.end(),
                Err(panic) => self.kill(Error::Raised(Fault::panic(panic.as_ref()))),
            },
            _ = state.wait_for(|it| *it == State::Ended) => {}
        }
    }

    /// Lets no new work in, and the running workers end.
    async fn drain(&self) {
        let timeout = self.inner.limits.stop_timeout;
        let begun = Instant::now();
        let entrypoints = join_all(self.inner.entrypoints.iter().map(|it| it.stop()));
        if tokio::time::timeout(timeout, entrypoints).await.is_err() {
            tracing::warn!(
                service = self.service_name(),
                "entrypoints have not stopped after {timeout:?}; does the broker answer?",
            );
        }
        let left = timeout.saturating_sub(begun.elapsed());
        if tokio::time::timeout(left, self.inner.tasks.finished())
            .await
            .is_err()
        {
            tracing::warn!(
                service = self.service_name(),
                workers = self.inner.tasks.running(),
                "workers still run after {timeout:?} and are dropped; their messages go back to the queue",
            );
            self.inner.tasks.abort();
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
        inner.tasks.abort();
        if inner.state.send_replace(State::Ended) == State::Stopping
            && inner.killed_by.get().is_none()
        {
            return;
        }
        inner.entrypoints.iter().for_each(|it| it.kill());
        inner.providers.iter().for_each(|it| it.kill());
        self.shared_extensions().iter().for_each(|it| it.kill());
    }

    /// Returns when the container has stopped.
    ///
    /// # Errors
    /// [`Error::Killed`] when it was killed.
    pub async fn wait(&self) -> Result<()> {
        self.ended().await;
        match self.inner.killed_by.get() {
            Some(reason) => Err(Error::Killed {
                service: self.service_name().to_owned(),
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
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

    /// The extension `T` of this container, made when first asked for. For use in `setup`.
    ///
    /// # Errors
    /// What `make` failed with. [`Error::ContainerStopping`] when the container was stopped meanwhile: who stops it
    /// would not find what is made now.
    pub fn shared<T: SharedExtension>(
        &self,
        make: impl FnOnce(&Container) -> Result<T>,
    ) -> Result<Arc<T>> {
        let kind = TypeId::of::<T>();
        let known = self
            .lock_shared()
            .iter()
            .find(|it| it.kind == kind)
            .map(|it| it.any.clone());
        if let Some(known) = known.and_then(|it| it.downcast().ok()) {
            return Ok(known);
        }
        let extension = Arc::new(make(self)?);
        let mut shared = self.lock_shared();
        if *self.inner.state.borrow() > State::Started {
            return Err(self.stopping());
        }
        shared.push(SharedEntry {
            kind,
            any: extension.clone(),
            extension: extension.clone(),
        });
        Ok(extension)
    }

    fn shared_extensions(&self) -> Vec<Arc<dyn DynShared>> {
        self.lock_shared()
            .iter()
            .map(|it| it.extension.clone())
            .collect()
    }

    fn lock_shared(&self) -> std::sync::MutexGuard<'_, Vec<SharedEntry>> {
        self.inner
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `task` as part of the container: `stop` waits for it, `kill` drops it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    /// Runs one worker to its end in the calling task, waiting while `max_workers` are busy. `handle_result` sees the
    /// outcome before the providers do, and may change it: it is where a reply is sent.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] when the arguments do not fit: no worker was made then.
    /// [`Error::ContainerStopping`] when the container takes no more work.
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
        let inner = &self.inner;
        // Types of the service read the arguments: their panic is the call's outcome, as one of the method is.
        let prepare = AssertUnwindSafe(|| inner.host.prepare(method.index, arguments));
        let work = catch_unwind(prepare)
            .map_err(|panic| Error::Raised(Fault::panic(panic.as_ref())))??;
        let _slot = inner.slots.acquire().await.map_err(|_| self.stopping())?;
        let ctx = WorkerContext::new(
            inner.service.clone(),
            method.name,
            inner.config.clone(),
            inner.limits.parents,
            context_data,
        );
        let outcome = match AssertUnwindSafe(work(ctx.clone(), inner.providers.clone()))
            .catch_unwind()
            .await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(broken)) => return Err(self.broken_hook(broken)),
            Err(panic) => Err(Fault::panic(panic.as_ref())),
        };
        if let Err(fault) = &outcome {
            tracing::error!(worker = %ctx, call_id = ctx.call_id(), "error handling worker: {}: {fault}", fault.exc_type);
        }
        let outcome = handle_result(outcome).await;
        if inner.providers.is_empty() {
            return Ok(());
        }
        let finish = async {
            for provider in inner.providers.iter() {
                provider.worker_result(&ctx, &outcome).await?;
            }
            for provider in inner.providers.iter() {
                provider.worker_teardown(&ctx).await?;
            }
            Ok(())
        };
        match AssertUnwindSafe(finish).catch_unwind().await {
            Ok(finished) => finished.map_err(|broken| self.broken_hook(broken)),
            Err(panic) => Err(self.broken_hook(Error::Raised(Fault::panic(panic.as_ref())))),
        }
    }

    /// A provider whose `worker_*` hook fails is broken: the container dies of it, as in Nameko.
    fn broken_hook(&self, error: Error) -> Error {
        self.kill(error);
        self.stopping()
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

/// A container that may be gone: what outlives a container holds this.
#[derive(Clone)]
pub(crate) struct WeakContainer(Weak<Inner>);

impl WeakContainer {
    pub(crate) fn upgrade(&self) -> Option<Container> {
        self.0.upgrade().map(|inner| Container { inner })
    }
}

/// The method an entrypoint runs.
#[derive(Debug, Clone)]
pub struct MethodHandle {
    index: usize,
    name: &'static str,
    params: &'static [Param],
}

impl MethodHandle {
    /// The method's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its parameters, without `self`.
    pub fn params(&self) -> &'static [Param] {
        self.params
    }
}

/// A worker ready to run: injection, `worker_setup`, the method. The outer error is a broken provider's.
type Work = Box<
    dyn FnOnce(WorkerContext, Arc<[Arc<dyn DynProvider>]>) -> BoxFuture<'static, Result<Outcome>>
        + Send,
>;

/// A service without its type, as the container holds it.
trait Host: Send + Sync {
    fn method(&self, index: usize) -> (&'static str, &'static [Param]);
    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work>;
}

struct ServiceHost<S> {
    injector: Arc<Injector<S>>,
    methods: Vec<Method<S>>,
}

impl<S: Service> Host for ServiceHost<S> {
    fn method(&self, index: usize) -> (&'static str, &'static [Param]) {
        self.methods
            .get(index)
            .map_or(("", &[]), |it| (it.name, it.params))
    }

    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work> {
        let method = self
            .methods
            .get(index)
            .ok_or_else(|| Error::MethodNotFound(index.to_string()))?;
        let call = method.decode(&mut arguments.bind(method.name, method.params)?)?;
        let injector = self.injector.clone();
        Ok(Box::new(move |ctx, providers| {
            Box::pin(async move {
                let service = match injector.inject(ctx.clone()).await {
                    Ok(service) => service,
                    Err(error) => return Ok(Err(Fault::of(&error))),
                };
                for provider in providers.iter() {
                    provider.worker_setup(&ctx).await?;
                }
                Ok(call.run(&service).await)
            })
        }))
    }
}
