//! Dependency providers of a container, and their replacements.

use std::{any::Any, borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    error::{Error, Result},
    extension::DynProvider,
    stateful_provider::StatefulProvider,
    worker::WorkerContext,
    worker_hooks::{Injected, WorkerHooks},
};

/// A dependency provider with the name of its field, `outer.field` in a nested struct.
#[derive(Clone)]
pub(crate) struct BoundProvider {
    pub(crate) field: Cow<'static, str>,
    pub(crate) provider: Arc<dyn DynProvider>,
}

/// [`StatefulProvider::get_dependency`], generic over the type of the dependency.
pub(crate) trait Provide<D>: Send + Sync {
    /// Returns the dependency of a worker, and the later hooks of the provider for this worker.
    fn get<'a>(
        &'a self,
        ctx: &'a WorkerContext,
    ) -> BoxFuture<'a, Result<(D, Box<dyn WorkerHooks>)>>;
}

struct Injecting<P>(Arc<P>);

impl<P: StatefulProvider> Provide<P::Dependency> for Injecting<P> {
    fn get<'a>(
        &'a self,
        ctx: &'a WorkerContext,
    ) -> BoxFuture<'a, Result<(P::Dependency, Box<dyn WorkerHooks>)>> {
        Box::pin(async move {
            let (dependency, state) = self.0.get_dependency(ctx).await?;
            let hooks = Injected {
                provider: self.0.clone(),
                state,
            };
            Ok((dependency, Box::new(hooks) as Box<dyn WorkerHooks>))
        })
    }
}

/// A provider of a `D`: for the life cycle in the container, and for injection into workers.
pub(crate) struct Declared<D> {
    pub(crate) provider: Arc<dyn DynProvider>,
    pub(crate) provide: Arc<dyn Provide<D>>,
}

impl<D> Declared<D> {
    pub(crate) fn new<P: StatefulProvider<Dependency = D>>(provider: P) -> Self {
        let provider = Arc::new(provider);
        Self {
            provider: provider.clone(),
            provide: Arc::new(Injecting(provider)),
        }
    }
}

/// Replacements of declared providers, by field.
#[derive(Default)]
pub(crate) struct Replacements {
    given: BTreeMap<String, Replacement>,
    /// Mismatches: the field, its type, the type of the replacement.
    wrong: Vec<(String, &'static str, &'static str)>,
}

struct Replacement {
    /// Type name of the dependency.
    gives: &'static str,
    /// A [`Declared`] of that type.
    declared: Box<dyn Any + Send>,
}

impl Replacements {
    /// Removes and returns the replacement for the provider of `field`, which has the type `D`.
    pub(crate) fn take<D: 'static>(&mut self, field: &str) -> Option<Declared<D>> {
        let Replacement { gives, declared } = self.given.remove(field)?;
        match declared.downcast() {
            Ok(declared) => Some(*declared),
            Err(_) => {
                self.wrong
                    .push((field.to_owned(), std::any::type_name::<D>(), gives));
                None
            }
        }
    }

    /// Adds a replacement for the provider of `field`.
    pub(super) fn insert<P: StatefulProvider>(&mut self, field: String, provider: P) {
        let replacement = Replacement {
            gives: std::any::type_name::<P::Dependency>(),
            declared: Box::new(Declared::<P::Dependency>::new(provider)),
        };
        self.given.insert(field, replacement);
    }

    /// Returns the fields of the replacements.
    pub(super) fn fields(&self) -> impl Iterator<Item = &String> + fmt::Debug {
        self.given.keys()
    }

    /// Checks that every replacement matched a field and its type.
    pub(super) fn check(&self, service: &str, bound: &[BoundProvider]) -> Result<()> {
        if let Some((field, holds, gives)) = self.wrong.first() {
            let reason = format!("the field is a `{holds}`, but its replacement is a `{gives}`");
            return Err(Error::Extension {
                service: service.to_owned(),
                extension: format!("dependency `{field}`"),
                reason: Box::new(Error::raise("TypeError", reason)),
            });
        }
        match self.given.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let fields = bound.iter().map(|provider| &*provider.field);
                Err(Error::extension_not_found(
                    service,
                    "dependency",
                    unknown,
                    fields,
                ))
            }
        }
    }
}
