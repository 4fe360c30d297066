//! Services: a name, dependencies, and entrypoints.
//!
//! `#[derive(Dependencies)]` and `#[service("name")]` implement the traits of this module. See
//! [`Service`] for an implementation without macros.

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    arguments::{Args, Param},
    container::{BoundProvider, Declared, Provide, Replacements},
    error::{Raise, Result},
    error_chain::ErrorChain,
    extension::{DynEntrypoint, Entrypoint},
    extractor::{Extractor, Extractors},
    layer::Layers,
    protocol::Fault,
    reply::{Outcome, Reply},
    stateful_provider::Provider,
    worker::WorkerContext,
};

/// A service: a name, dependencies to inject and methods to call.
///
/// Implemented by `#[service("name")]` on an impl block. Without the macro:
///
/// ```
/// use nameko::{Bindings, Dependencies, Entrypoints, Injector, Method, Param, Rpc, Service};
///
/// struct Greeter;
///
/// impl Greeter {
///     async fn hello(&self, name: String) -> nameko::Result<String> {
///         Ok(format!("Hello, {name}!"))
///     }
/// }
///
/// impl Dependencies for Greeter {
///     fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
///         Injector::new(|_ctx| async { Ok(Self) })
///     }
/// }
///
/// impl Service for Greeter {
///     const NAME: &'static str = "greeter";
///
///     fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
///         const NAME: &[Param] = &[Param::required("name")];
///         let hello = Method::new("hello", NAME, |args| {
///             let name = args.take::<String>()?;
///             Ok(Method::call(move |service: &Self| {
///                 Box::pin(async move { Method::<Self>::reply(service.hello(name).await) })
///             }))
///         });
///         entrypoints.add(Rpc::new(), hello);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "no `#[service(\"name\")] impl {Self}` was found",
    note = "a service is a struct with `#[derive(Dependencies)]` and an impl block with `#[service(\"name\")]`"
)]
pub trait Service: Dependencies {
    /// Name of the service for callers, the first word of its routing keys.
    const NAME: &'static str;

    /// Adds all entrypoints with their methods.
    fn entrypoints(entrypoints: &mut Entrypoints<Self>);

    /// Adds the layers of the service, the outermost first.
    fn layers(layers: &mut Layers) {
        let _ = layers;
    }
}

/// A struct with injected fields, created for every call.
///
/// Implemented by `#[derive(Dependencies)]`.
#[diagnostic::on_unimplemented(
    message = "the dependencies of `{Self}` are not declared",
    label = "add `#[derive(Dependencies)]` to this struct"
)]
pub trait Dependencies: Sized + Send + Sync + 'static {
    /// Declares the providers, and returns the injector of service values.
    fn bind(bindings: &mut Bindings<'_>) -> Injector<Self>;
}

/// Collects the declared dependency providers of a service.
pub struct Bindings<'a> {
    bound: &'a mut Vec<BoundProvider>,
    replacements: &'a mut Replacements,
    /// Path of the nested struct whose fields are being declared, with a dot at the end.
    path: String,
}

impl<'a> Bindings<'a> {
    pub(crate) fn new(
        bound: &'a mut Vec<BoundProvider>,
        replacements: &'a mut Replacements,
    ) -> Self {
        Self {
            bound,
            replacements,
            path: String::new(),
        }
    }

    /// Declares the provider of the field `name`, which lives as long as the container. Uses the
    /// replacement of the field instead if the [builder](crate::ContainerBuilder) has one.
    pub fn provide<P, D, Kind>(&mut self, name: &'static str, provider: P) -> Provided<D>
    where
        P: Provider<Kind, Dependency = D>,
        D: 'static,
    {
        let field = self.field(name);
        let replacement = self.replacements.take(&field);
        let declared = replacement.unwrap_or_else(|| Declared::new(provider.into_stateful()));
        self.bind(field, declared)
    }

    /// Declares the providers of a nested struct in the field `name`. Its fields are named
    /// `name.field`, for replacements and in errors. Uses the replacement of the whole struct
    /// instead if the [builder](crate::ContainerBuilder) has one.
    pub fn nested<T: Dependencies>(&mut self, name: &'static str) -> Provided<T> {
        let field = self.field(name);
        if let Some(replacement) = self.replacements.take(&field) {
            return self.bind(field, replacement);
        }
        let outer = std::mem::replace(&mut self.path, format!("{field}."));
        let injector = T::bind(self);
        self.path = outer;
        Provided(Source::Nested(Arc::new(injector)))
    }

    /// Returns the name of a field, with its path.
    fn field(&self, name: &'static str) -> Cow<'static, str> {
        match self.path.is_empty() {
            true => name.into(),
            false => format!("{}{name}", self.path).into(),
        }
    }

    fn bind<D>(&mut self, field: Cow<'static, str>, declared: Declared<D>) -> Provided<D> {
        self.bound.push(BoundProvider {
            field: field.clone(),
            provider: declared.provider,
        });
        Provided(Source::Provider(field, declared.provide))
    }
}

/// A declared provider of dependencies of type `D`.
///
/// Independent of the type of the provider, so that the compiler reports an invalid provider
/// expression only once.
pub struct Provided<D>(Source<D>);

enum Source<D> {
    /// A provider, with the name of its field.
    Provider(Cow<'static, str>, Arc<dyn Provide<D>>),
    /// A struct of dependencies.
    Nested(Arc<Injector<D>>),
}

impl<D> Clone for Provided<D> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Source::Provider(name, provider) => Source::Provider(name.clone(), provider.clone()),
            Source::Nested(injector) => Source::Nested(injector.clone()),
        })
    }
}

impl<D> Provided<D> {
    /// Returns the dependency of a worker. From then on, the provider's other hooks are called for
    /// this worker.
    ///
    /// # Errors
    /// The error of `get_dependency`.
    pub async fn get(&self, ctx: &WorkerContext) -> Result<D> {
        match &self.0 {
            Source::Provider(name, provider) => {
                let (dependency, hooks) = provider.get(ctx).await.inspect_err(|error| {
                    let error = ErrorChain(error);
                    tracing::error!(dependency = &**name, worker = %ctx, %error, "cannot inject the dependency");
                })?;
                ctx.add_hooks(name.clone(), hooks);
                Ok(dependency)
            }
            Source::Nested(injector) => injector.inject(ctx.clone()).await,
        }
    }
}

type Inject<S> = dyn Fn(WorkerContext) -> BoxFuture<'static, Result<S>> + Send + Sync;

/// Creates the service values of workers.
pub struct Injector<S> {
    inject: Box<Inject<S>>,
}

impl<S> Injector<S> {
    /// Creates an injector from a function that creates the value of a worker.
    pub fn new<F, Fut>(inject: F) -> Self
    where
        F: Fn(WorkerContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S>> + Send + 'static,
    {
        Self {
            inject: Box::new(move |ctx| Box::pin(inject(ctx))),
        }
    }

    pub(crate) fn inject(&self, ctx: WorkerContext) -> BoxFuture<'static, Result<S>> {
        (self.inject)(ctx)
    }
}

/// Collects the entrypoints of a service, with their methods.
pub struct Entrypoints<S> {
    pub(crate) list: Vec<(Arc<dyn DynEntrypoint>, Method<S>)>,
}

impl<S: Service> Entrypoints<S> {
    pub(crate) fn of() -> Self {
        let mut entrypoints = Self { list: Vec::new() };
        S::entrypoints(&mut entrypoints);
        entrypoints
    }

    /// Adds an entrypoint. A method may have several.
    pub fn add(&mut self, entrypoint: impl Entrypoint, method: Method<S>) {
        self.list.push((Arc::new(entrypoint), method));
    }
}

type Decode<S> = dyn Fn(&mut Args) -> Result<Call<S>> + Send + Sync;

/// A service method for entrypoints: a name, parameters, and a function that decodes arguments.
pub struct Method<S> {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Param],
    /// Class names of errors caused by the caller.
    pub(crate) expected: &'static [&'static str],
    /// Arguments, or parts of them, that are redacted in logs.
    pub(crate) sensitive: &'static [&'static str],
    /// Whether it receives undecoded messages.
    pub(crate) raw_message: bool,
    pub(crate) extractors: Extractors,
    decode: Box<Decode<S>>,
}

impl<S> Method<S> {
    /// Creates a method. `decode` takes the arguments in the order of `params` and returns the
    /// call.
    pub fn new<F>(name: &'static str, params: &'static [Param], decode: F) -> Self
    where
        F: Fn(&mut Args) -> Result<Call<S>> + Send + Sync + 'static,
    {
        Self {
            name,
            params,
            expected: &[],
            sensitive: &[],
            raw_message: false,
            extractors: Extractors::default(),
            decode: Box::new(decode),
        }
    }

    /// Sets the errors caused by the caller, by the class name visible to callers (`NotFound`).
    /// They are logged as warnings.
    #[must_use]
    pub fn expected_exceptions(mut self, exc_types: &'static [&'static str]) -> Self {
        self.expected = exc_types;
        self
    }

    /// Sets the arguments that are redacted in logs, by name or path: `user.password`,
    /// `cards[0].number`.
    #[must_use]
    pub fn sensitive_arguments(mut self, arguments: &'static [&'static str]) -> Self {
        self.sensitive = arguments;
        self
    }

    /// Sets whether consuming entrypoints pass undecoded messages, as the [origin](Args::origin) of
    /// the call: a [`RawMessage`](crate::messaging::RawMessage).
    #[must_use]
    pub fn raw_message(mut self, raw: bool) -> Self {
        self.raw_message = raw;
        self
    }

    /// Sets the parameters that are extracted from the origin of a call.
    #[doc(hidden)]
    #[must_use]
    pub fn extractors(mut self, extractors: &'static [Extractor]) -> Self {
        self.extractors = Extractors::of(extractors);
        self
    }

    /// Creates a call with decoded arguments, to run on a service value.
    pub fn call<F>(call: F) -> Call<S>
    where
        F: for<'a> FnOnce(&'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>
            + Send
            + 'static,
    {
        Call(Box::new(call))
    }

    /// Converts the result of a method to an outcome.
    pub fn reply<T: Reply, E: Raise<M>, M>(result: std::result::Result<T, E>) -> Outcome {
        match result {
            Ok(value) => Ok(Box::new(value)),
            Err(error) => Err(Fault::of(&error)),
        }
    }

    pub(crate) fn decode(&self, args: &mut Args) -> Result<Call<S>> {
        (self.decode)(args)
    }
}

type CallFn<S> = dyn for<'a> FnOnce(&'a S) -> BoxFuture<'a, Outcome> + Send;

/// A call of a method, with decoded arguments.
pub struct Call<S>(Box<CallFn<S>>);

impl<S> Call<S> {
    pub(crate) fn run(self, service: &S) -> BoxFuture<'_, Outcome> {
        (self.0)(service)
    }
}
