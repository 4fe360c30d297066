//! What a service is: a name, dependencies, and entrypoints.
//!
//! `#[derive(Dependencies)]` and `#[service("name")]` write the two impls of this module. They hold no behaviour of
//! their own: the same service can be written by hand, as the example of [`Service`] shows.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    arguments::{Args, Param},
    container::{BoundProvider, Declared, Provide, Replacements},
    error::{Raise, Result},
    extension::{DependencyProvider, DynEntrypoint, Entrypoint},
    protocol::Fault,
    reply::{Outcome, Reply},
    worker::WorkerContext,
};

/// A service: a name, dependencies to inject and methods to call.
///
/// Written by `#[service("name")]` on an impl block. By hand:
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
    /// The name other services call it by: the first word of its routing keys.
    const NAME: &'static str;

    /// Adds each entrypoint with the method it runs.
    fn entrypoints(entrypoints: &mut Entrypoints<Self>);
}

/// A struct whose fields are injected, made anew for every call.
///
/// Written by `#[derive(Dependencies)]`.
#[diagnostic::on_unimplemented(
    message = "the dependencies of `{Self}` are not declared",
    label = "add `#[derive(Dependencies)]` to this struct"
)]
pub trait Dependencies: Sized + Send + Sync + 'static {
    /// Declares the providers, and returns how a worker's value is made with what they give.
    fn bind(bindings: &mut Bindings<'_>) -> Injector<Self>;
}

/// Where a service's dependency providers are declared.
pub struct Bindings<'a> {
    bound: &'a mut Vec<BoundProvider>,
    replacements: &'a mut Replacements,
}

impl<'a> Bindings<'a> {
    pub(crate) fn new(
        bound: &'a mut Vec<BoundProvider>,
        replacements: &'a mut Replacements,
    ) -> Self {
        Self {
            bound,
            replacements,
        }
    }

    /// Declares the provider of the field `name`. It lives as long as the container. A container that was
    /// [built](crate::ContainerBuilder) with a replacement for the field takes that one.
    pub fn provide<P, D>(&mut self, name: &'static str, provider: P) -> Provided<D>
    where
        P: DependencyProvider<Dependency = D>,
        D: 'static,
    {
        let replacement = self.replacements.take(name);
        let Declared { provider, provide } =
            replacement.unwrap_or_else(|| Declared::new(Arc::new(provider)));
        self.bound.push(BoundProvider {
            field: name,
            provider,
        });
        Provided {
            name,
            provider: provide,
        }
    }
}

/// A declared provider of a `D`, from which each worker takes its own.
///
/// Does not tell what the provider is, so that the compiler reports an expression that is no provider once.
pub struct Provided<D> {
    name: &'static str,
    provider: Arc<dyn Provide<D>>,
}

impl<D> Clone for Provided<D> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            provider: self.provider.clone(),
        }
    }
}

impl<D> Provided<D> {
    /// The dependency for one worker.
    ///
    /// # Errors
    /// The provider's own, from [`DependencyProvider::get_dependency`].
    pub async fn get(&self, ctx: &WorkerContext) -> Result<D> {
        self.provider.get(ctx).await.inspect_err(|error| {
            tracing::error!(dependency = self.name, worker = %ctx, %error, "dependency could not be injected");
        })
    }
}

type Inject<S> = dyn Fn(WorkerContext) -> BoxFuture<'static, Result<S>> + Send + Sync;

/// How a worker's service value is made.
pub struct Injector<S> {
    inject: Box<Inject<S>>,
}

impl<S> Injector<S> {
    /// From a function that makes one value for one worker.
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

/// The entrypoints of a service, each with the method it runs.
pub struct Entrypoints<S> {
    pub(crate) list: Vec<(Arc<dyn DynEntrypoint>, Method<S>)>,
}

impl<S: Service> Entrypoints<S> {
    pub(crate) fn of() -> Self {
        let mut entrypoints = Self { list: Vec::new() };
        S::entrypoints(&mut entrypoints);
        entrypoints
    }

    /// Adds one entrypoint. A method may have several.
    pub fn add(&mut self, entrypoint: impl Entrypoint, method: Method<S>) {
        self.list.push((Arc::new(entrypoint), method));
    }
}

type Decode<S> = dyn Fn(&mut Args) -> Result<Call<S>> + Send + Sync;

/// A method of a service as entrypoints see it: a name, parameters, and a call that takes arguments off the wire.
pub struct Method<S> {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Param],
    /// Class names of the errors that are the caller's fault.
    pub(crate) expected: &'static [&'static str],
    /// Arguments, or parts of them, that no log shows.
    pub(crate) sensitive: &'static [&'static str],
    /// Whether its entrypoint gives it messages as they came.
    pub(crate) raw_message: bool,
    decode: Box<Decode<S>>,
}

impl<S> Method<S> {
    /// `decode` takes the arguments in the order of `params` and returns the call to make with them.
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
            decode: Box::new(decode),
        }
    }

    /// Errors that are the caller's fault, by the class name that callers see (`NotFound`). They are logged as warnings.
    #[must_use]
    pub fn expected_exceptions(mut self, exc_types: &'static [&'static str]) -> Self {
        self.expected = exc_types;
        self
    }

    /// Arguments that no log shows: by name, or a part of one: `user.password`, `cards[0].number`.
    #[must_use]
    pub fn sensitive_arguments(mut self, arguments: &'static [&'static str]) -> Self {
        self.sensitive = arguments;
        self
    }

    /// Whether an entrypoint that consumes gives messages as they came, each the [origin](Args::origin) of a call: a
    /// [`RawMessage`](crate::messaging::RawMessage).
    #[must_use]
    pub fn raw_message(mut self, raw: bool) -> Self {
        self.raw_message = raw;
        self
    }

    /// A call whose arguments are decoded, ready to run on a worker's service value.
    pub fn call<F>(call: F) -> Call<S>
    where
        F: for<'a> FnOnce(&'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>
            + Send
            + 'static,
    {
        Call(Box::new(call))
    }

    /// What a method returned, as entrypoints take it.
    pub fn reply<T: Reply, E: Raise>(result: std::result::Result<T, E>) -> Outcome {
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

/// One call of a method, its arguments decoded.
pub struct Call<S>(Box<CallFn<S>>);

impl<S> Call<S> {
    pub(crate) fn run(self, service: &S) -> BoxFuture<'_, Outcome> {
        (self.0)(service)
    }
}
