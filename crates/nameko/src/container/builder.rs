//! A container with something other than its service declares: for tests, and for several of a kind.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{Container, providers::Replacements, typed_dispatch::TypedDispatch};
use crate::{
    config::Config,
    error::{Error, Result},
    extension::DependencyProvider,
    service::{Bindings, Entrypoints, Service},
    worker::WorkerContext,
};

/// Makes a [`Container`] in which dependencies are replaced, or which has some of its entrypoints only.
///
/// ```
/// use nameko::{prelude::*, testing};
///
/// #[derive(Dependencies)]
/// struct ServiceX {
///     #[dependency(RpcProxy::new("service_y"))]
///     y: ServiceProxy,
/// }
///
/// #[service("service_x")]
/// impl ServiceX {
///     #[rpc]
///     async fn remote_method(&self, value: String) -> Result<String> {
///         self.y.call("append_id", (format!("{value}-x"),)).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let broker = testing::broker().await;
/// let y = ServiceProxy::mock("service_y", |_method, args, _kwargs| Ok(args[0].clone()));
/// let container = Container::builder::<ServiceX>(broker.config())
///     .replace("y", y)
///     .only(["remote_method"])
///     .build()?;
/// container.start().await?;
/// # container.stop().await;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct ContainerBuilder<S> {
    config: Config,
    replacements: Replacements,
    only: Option<Vec<String>>,
    service: PhantomData<fn() -> S>,
}

impl Container {
    /// A container for the service `S`. Nothing is opened before [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Config`] when a config key does not hold what it should.
    pub fn new<S: Service>(config: Config) -> Result<Self> {
        Self::builder::<S>(config).build()
    }

    /// A container for the service `S` in which dependencies are replaced, or which has some of its entrypoints only.
    pub fn builder<S: Service>(config: Config) -> ContainerBuilder<S> {
        ContainerBuilder {
            config,
            replacements: Replacements::default(),
            only: None,
            service: PhantomData,
        }
    }
}

impl<S: Service> ContainerBuilder<S> {
    /// Injects a clone of `value` into each worker's `field`. The field's own provider is never set up.
    pub fn replace<D>(self, field: impl Into<String>, value: D) -> Self
    where
        D: Clone + Send + Sync + 'static,
    {
        self.replace_provider(field, Value(value))
    }

    /// Puts another provider in the place of the `field`'s own, which is never set up. It must give what the field holds.
    pub fn replace_provider<P: DependencyProvider>(
        mut self,
        field: impl Into<String>,
        provider: P,
    ) -> Self {
        self.replacements.insert(field.into(), provider);
        self
    }

    /// Restricts the entrypoints to those of the methods named. Of a method with several entrypoints all stay.
    pub fn only<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        let methods = methods.into_iter().map(Into::into);
        self.only.get_or_insert_default().extend(methods);
        self
    }

    /// The container. Nothing is opened before [`start`](Container::start).
    ///
    /// # Errors
    /// [`Error::Config`] when a config key does not hold what it should.
    /// [`Error::ExtensionNotFound`] when the service has no such field or method; it lists those that it has.
    /// [`Error::Extension`] when a replacement does not give what the field holds; it names both types.
    pub fn build(mut self) -> Result<Container> {
        let mut bound = Vec::new();
        let injector = S::bind(&mut Bindings::new(&mut bound, &mut self.replacements));
        self.replacements.check(S::NAME, &bound)?;
        let mut list = Entrypoints::<S>::of().list;
        if let Some(only) = &self.only {
            let known = || list.iter().map(|(_, method)| method.name);
            if let Some(unknown) = only.iter().find(|it| known().all(|name| name != **it)) {
                return Err(Error::extension_not_found(
                    S::NAME,
                    "entrypoint",
                    unknown,
                    known(),
                ));
            }
            list.retain(|(_, method)| only.iter().any(|it| it == method.name));
        }
        let (entrypoints, methods) = list.into_iter().unzip();
        let dispatch = TypedDispatch {
            injector: Arc::new(injector),
            methods,
        };
        Container::assemble(S::NAME, self.config, dispatch, entrypoints, bound)
    }
}

impl<S: Service> fmt::Debug for ContainerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerBuilder")
            .field("service", &S::NAME)
            .field("replaced", &self.replacements.fields())
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

/// Gives each worker a clone of one value.
struct Value<D>(D);

impl<D: Clone + Send + Sync + 'static> DependencyProvider for Value<D> {
    type Dependency = D;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<D> {
        Ok(self.0.clone())
    }
}
