//! Containers with replaced dependencies or selected entrypoints.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{Attachments, Container, providers::Replacements, typed_dispatch::TypedDispatch};
use crate::{
    config::Config,
    error::{Error, Result},
    layer::{Layers, WorkerLayer},
    service::{Bindings, Entrypoints, Service},
    stateful_provider::Provider,
    values::Provide,
};

/// Builder of a [`Container`] with layers, replaced dependencies or selected entrypoints.
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
#[must_use = "a builder does nothing until `build` is called"]
pub struct ContainerBuilder<S> {
    config: Config,
    replacements: Replacements,
    only: Option<Vec<String>>,
    pub(crate) attachments: Attachments,
    layers: Layers,
    service: PhantomData<fn() -> S>,
}

impl Container {
    /// Creates a container for the service `S`. Opens no connections before [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Config`] if the value of a config key is invalid.
    pub fn new<S: Service>(config: Config) -> Result<Self> {
        Self::builder::<S>(config).build()
    }

    /// Creates a builder of a container for the service `S`, to add layers, replace dependencies or
    /// select entrypoints.
    pub fn builder<S: Service>(config: Config) -> ContainerBuilder<S> {
        ContainerBuilder {
            config,
            replacements: Replacements::default(),
            only: None,
            attachments: Attachments::default(),
            layers: Layers::default(),
            service: PhantomData,
        }
    }
}

impl<S: Service> ContainerBuilder<S> {
    /// Injects a clone of `value` into the `field` of every worker. The declared provider of the
    /// field is not set up.
    pub fn replace<D>(self, field: impl Into<String>, value: D) -> Self
    where
        D: Clone + Send + Sync + 'static,
    {
        self.replace_provider(field, Provide(value))
    }

    /// Replaces the declared provider of `field`, which is not set up. The dependency type must be
    /// the type of the field.
    pub fn replace_provider<Kind>(
        mut self,
        field: impl Into<String>,
        provider: impl Provider<Kind>,
    ) -> Self {
        self.replacements
            .insert(field.into(), provider.into_stateful());
        self
    }

    /// Restricts the entrypoints to those of the named methods. Keeps all entrypoints of such a
    /// method.
    pub fn only<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        let methods = methods.into_iter().map(Into::into);
        self.only.get_or_insert_default().extend(methods);
        self
    }

    /// Adds a layer around all workers of the container, inside the layers added before and outside
    /// those of the service.
    pub fn layer(mut self, layer: impl WorkerLayer) -> Self {
        self.layers.add(layer);
        self
    }

    /// Adds layers inside those added before.
    pub(crate) fn layers(mut self, layers: Layers) -> Self {
        self.layers.extend(layers);
        self
    }

    /// Builds the container. Opens no connections before [`start`](Container::start).
    ///
    /// # Errors
    /// [`Error::Config`] if the value of a config key is invalid. [`Error::ExtensionNotFound`] if
    /// the service has no such field or method; lists the existing ones. [`Error::Extension`] if a
    /// replacement has another type than the field; names both types.
    pub fn build(mut self) -> Result<Container> {
        let mut bound = Vec::new();
        let injector = S::bind(&mut Bindings::new(&mut bound, &mut self.replacements));
        self.replacements.check(S::NAME, &bound)?;
        let mut list = Entrypoints::<S>::of().list;
        if let Some(only) = &self.only {
            let known = || list.iter().map(|(_, method)| method.name);
            if let Some(unknown) = only
                .iter()
                .find(|wanted| known().all(|name| name != **wanted))
            {
                return Err(Error::extension_not_found(
                    S::NAME,
                    "entrypoint",
                    unknown,
                    known(),
                ));
            }
            list.retain(|(_, method)| only.iter().any(|wanted| wanted == method.name));
        }
        let (entrypoints, methods): (_, Vec<_>) = list.into_iter().unzip();
        let dispatch = TypedDispatch {
            injector: Arc::new(injector),
            methods: methods.into(),
        };
        S::layers(&mut self.layers);
        Container::assemble(
            S::NAME,
            self.config,
            self.attachments,
            dispatch,
            entrypoints,
            bound,
            self.layers,
        )
    }
}

impl<S: Service> fmt::Debug for ContainerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerBuilder")
            .field("service", &S::NAME)
            .field("replaced", &self.replacements.fields())
            .field("only", &self.only)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
