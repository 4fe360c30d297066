//! Dependencies on plain values: injected as they are, or created once and shared by services.

use std::{
    any::{Any, TypeId, type_name},
    fmt,
    future::Future,
    sync::{Arc, Mutex, Weak},
};

use futures_util::future::BoxFuture;
use tokio::{runtime::Handle, sync::OnceCell};

use crate::{
    config::Config,
    container::Container,
    error::{Error, Result},
    extension::DependencyProvider,
    sync::lock,
    worker::WorkerContext,
};

/// Injects a clone of a value into every worker.
///
/// The expression is evaluated once per container. For a value that needs the configuration or an
/// asynchronous function, or that several services share, see [`Shared`].
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
///
/// use nameko::{Provide, prelude::*};
///
/// #[derive(Dependencies)]
/// struct Tickets {
///     #[dependency(Provide(Arc::new(AtomicU64::new(1))))]
///     next: Arc<AtomicU64>,
/// }
///
/// #[service("tickets")]
/// impl Tickets {
///     #[rpc]
///     async fn draw(&self) -> Result<u64> {
///         Ok(self.next.fetch_add(1, Ordering::Relaxed))
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Copy)]
pub struct Provide<T> {
    value: T,
    clone: fn(&T) -> T,
}

/// Creates a provider of clones of `value`.
// A function instead of the constructor of a tuple struct, so that the compiler reports a value
// that is not `Clone` here, and not that the struct is no provider.
#[expect(non_snake_case, reason = "creates the struct of that name")]
pub fn Provide<T: Clone + Send + Sync + 'static>(value: T) -> Provide<T> {
    Provide {
        value,
        clone: T::clone,
    }
}

impl<T: Send + Sync + 'static> DependencyProvider for Provide<T> {
    type Dependency = T;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<T> {
        Ok((self.clone)(&self.value))
    }
}

impl<T> fmt::Debug for Provide<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Provide [{}]>", type_name::<T>())
    }
}

/// Creates a value once for all services of a [`Runner`](crate::Runner), such as a connection pool,
/// and injects clones of it.
///
/// The function identifies the value: services that name the same function share what it returned.
/// More precisely, containers share it if they were created with clones of one [`Config`], as a
/// runner does. The function runs in the `setup` of the first of them; the others wait for it. If
/// it fails, the service does not start.
///
/// ```
/// use nameko::{Shared, prelude::*};
/// # #[derive(Clone)]
/// # struct Pool;
/// # impl Pool {
/// #     async fn connect(_: &str) -> Result<Self> { Ok(Self) }
/// #     async fn close(self) {}
/// # }
///
/// async fn database(config: Config) -> Result<Pool> {
///     Pool::connect(config.str("DATABASE_URL")?.unwrap_or("postgres://localhost/shop")).await
/// }
///
/// #[derive(Dependencies)]
/// struct Orders {
///     #[dependency(Shared::new(database).on_close(Pool::close))]
///     database: Pool,
/// }
///
/// #[derive(Dependencies)]
/// struct Stock {
///     #[dependency(Shared::new(database).on_close(Pool::close))]
///     database: Pool,
/// }
/// # fn main() {}
/// ```
pub struct Shared<T> {
    clone: fn(&T) -> T,
    function: TypeId,
    create: Box<dyn Fn(Config) -> BoxFuture<'static, Result<T>> + Send + Sync>,
    close: Option<Arc<Close<T>>>,
    /// From `setup` until the container has ended.
    value: Mutex<Option<Arc<Value<T>>>>,
}

type Close<T> = dyn Fn(T) -> BoxFuture<'static, ()> + Send + Sync;

impl<T: Send + Sync + 'static> Shared<T> {
    /// Creates a provider of the value that `create` returns for the configuration: the name of an
    /// `async fn`, or a closure that captures nothing. Anything else is a compile error, since it
    /// could return another value for each service.
    pub fn new<F, Fut>(create: F) -> Self
    where
        T: Clone,
        F: Fn(Config) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "`Shared::new` takes the name of a function, or a closure that captures nothing"
            );
        }
        Self {
            clone: T::clone,
            function: TypeId::of::<F>(),
            create: Box::new(move |config| Box::pin(create(config))),
            close: None,
            value: Mutex::new(None),
        }
    }

    /// Sets a function that receives the value after the last service that shares it has stopped.
    /// Cancelled after ten seconds. After a kill it runs in the background.
    #[must_use]
    pub fn on_close<F, Fut>(mut self, close: F) -> Self
    where
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.close = Some(Arc::new(move |value| Box::pin(close(value))));
        self
    }

    /// Ends the use of the value, and returns its end if this was the last use.
    fn release(&self) -> Option<BoxFuture<'static, ()>> {
        let value = lock(&self.value).take();
        let value = Arc::into_inner(value?)?.0.into_inner()?;
        self.close.as_ref().map(|close| close(value))
    }
}

impl<T: Send + Sync + 'static> DependencyProvider for Shared<T> {
    type Dependency = T;

    async fn setup(&self, container: &Container) -> Result<()> {
        let config = container.config();
        let value = Value::of(self.function, config);
        value
            .0
            .get_or_try_init(|| (self.create)(config.clone()))
            .await?;
        *lock(&self.value) = Some(value);
        Ok(())
    }

    async fn stop(&self) {
        if let Some(close) = self.release() {
            close.await;
        }
    }

    fn kill(&self) {
        if let (Some(close), Ok(runtime)) = (self.release(), Handle::try_current()) {
            runtime.spawn(close);
        }
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<T> {
        let value = lock(&self.value)
            .as_ref()
            .and_then(|value| value.0.get().map(self.clone));
        value.ok_or_else(|| Error::ContainerStopping(ctx.service_name().to_owned()))
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Shared [{}]>", type_name::<T>())
    }
}

/// A shared value, created on first use.
struct Value<T>(OnceCell<T>);

/// The values in use, by function and configuration.
static IN_USE: Mutex<Vec<InUse>> = Mutex::new(Vec::new());

struct InUse {
    function: TypeId,
    config: Config,
    /// A [`Value`] of the type that the function returns.
    value: Weak<dyn Any + Send + Sync>,
}

impl<T: Send + Sync + 'static> Value<T> {
    /// Returns the value that `function` returned for `config`, or one that is not created yet.
    fn of(function: TypeId, config: &Config) -> Arc<Self> {
        let mut in_use = lock(&IN_USE);
        in_use.retain(|entry| entry.value.strong_count() > 0);
        let known = in_use
            .iter()
            .filter(|entry| entry.function == function && entry.config.is_same(config))
            .find_map(|entry| entry.value.upgrade()?.downcast().ok());
        known.unwrap_or_else(|| {
            let value = Arc::new(Self(OnceCell::new()));
            in_use.push(InUse {
                function,
                config: config.clone(),
                value: Arc::downgrade(&(value.clone() as Arc<dyn Any + Send + Sync>)),
            });
            value
        })
    }
}
