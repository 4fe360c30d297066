//! A container with something other than its service declares: for tests, and for several of a kind.

use std::{any::Any, collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use super::{
    Container,
    host::{Bound, ServiceHost},
};
use crate::{
    config::Config,
    error::{Error, Result},
    extension::DependencyProvider,
    service::{Bindings, Entrypoints, Provide, Service},
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
/// let y = ServiceProxy::fake("service_y", |_method, args, _kwargs| Ok(args[0].clone()));
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

impl<S: Service> ContainerBuilder<S> {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            replacements: Replacements::default(),
            only: None,
            service: PhantomData,
        }
    }

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
        let provider = Arc::new(provider);
        let replacement = Replacement {
            gives: std::any::type_name::<P::Dependency>(),
            declared: Box::new(Declared::<P::Dependency>::new(provider)),
        };
        self.replacements.given.insert(field.into(), replacement);
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
                return Err(not_found(S::NAME, "entrypoint", unknown, known()));
            }
            list.retain(|(_, method)| only.iter().any(|it| it == method.name));
        }
        let (entrypoints, methods) = list.into_iter().unzip();
        let host = ServiceHost {
            injector: Arc::new(injector),
            methods,
        };
        Container::assemble(S::NAME, self.config, host, entrypoints, bound)
    }
}

impl<S: Service> fmt::Debug for ContainerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerBuilder")
            .field("service", &S::NAME)
            .field("replaced", &self.replacements.given.keys())
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

/// The error that says what there is instead.
pub(super) fn not_found<'a>(
    service: &str,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Error {
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    known.dedup();
    let known = match known.as_slice() {
        [] => "it has none".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    };
    Error::ExtensionNotFound(format!("{service} has no {what} `{name}`; {known}"))
}

/// Gives each worker a clone of one value.
struct Value<D>(D);

impl<D: Clone + Send + Sync + 'static> DependencyProvider for Value<D> {
    type Dependency = D;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<D> {
        Ok(self.0.clone())
    }
}

/// A provider of a `D`, as the container holds it and as workers ask it.
pub(crate) struct Declared<D> {
    pub(crate) provider: Arc<dyn crate::extension::DynProvider>,
    pub(crate) provide: Arc<dyn Provide<D>>,
}

impl<D> Declared<D> {
    pub(crate) fn new<P: DependencyProvider<Dependency = D>>(provider: Arc<P>) -> Self {
        Self {
            provider: provider.clone(),
            provide: provider,
        }
    }
}

/// What stands in the place of declared providers, by field.
#[derive(Default)]
pub(crate) struct Replacements {
    given: BTreeMap<String, Replacement>,
    /// Of the wrong type: the field, what it holds, what was given.
    wrong: Vec<(&'static str, &'static str, &'static str)>,
}

struct Replacement {
    /// The type of what it provides.
    gives: &'static str,
    /// A `Declared` of that type.
    declared: Box<dyn Any + Send>,
}

impl Replacements {
    /// The replacement for the provider of `field`, which holds a `D`.
    pub(crate) fn take<D: 'static>(&mut self, field: &'static str) -> Option<Declared<D>> {
        let Replacement { gives, declared } = self.given.remove(field)?;
        match declared.downcast() {
            Ok(declared) => Some(*declared),
            Err(_) => {
                self.wrong.push((field, std::any::type_name::<D>(), gives));
                None
            }
        }
    }

    /// Whether every replacement has found its place.
    fn check(&self, service: &str, bound: &[Bound]) -> Result<()> {
        if let Some((field, holds, gives)) = self.wrong.first() {
            let reason = format!("it holds a `{holds}`, and its replacement is a `{gives}`");
            return Err(Error::Extension {
                service: service.to_owned(),
                extension: format!("dependency `{field}`"),
                reason: Box::new(Error::raise("TypeError", reason)),
            });
        }
        match self.given.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let fields = bound.iter().map(|it| it.field);
                Err(not_found(service, "dependency", unknown, fields))
            }
        }
    }
}
