//! A service without its type, as the container holds it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    arguments::{Arguments, Param},
    error::{Error, Result},
    extension::DynProvider,
    protocol::Fault,
    service::{Injector, Method, Outcome, Service},
    web::ErrorResponse,
    worker::WorkerContext,
};

/// The method an entrypoint runs.
#[derive(Debug, Clone)]
pub struct MethodHandle {
    /// Its place in the list of the container's entrypoints.
    pub(super) index: usize,
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// Class names of the errors that are the caller's fault.
    pub(super) expected: &'static [&'static str],
    /// Arguments, or parts of them, that no log shows.
    pub(super) sensitive: &'static [&'static str],
    pub(super) raw_message: bool,
}

impl MethodHandle {
    /// The method's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the error is the caller's fault: one that the method declares so, with `expected_exceptions`, or a
    /// [`web::Error`](crate::web::Error) with a status below 500.
    pub fn expects(&self, fault: &Fault) -> bool {
        let answered = |it: &ErrorResponse| it.status.as_u16() < 500;
        self.expected.contains(&fault.exc_type.as_str())
            || fault.web.as_deref().is_some_and(answered)
    }

    /// Whether it takes messages as they came, as [`RawMessage`](crate::messaging::RawMessage)s, and does not want them read.
    pub fn takes_raw_message(&self) -> bool {
        self.raw_message
    }

    /// Its parameters, without `self`.
    pub fn params(&self) -> &'static [Param] {
        self.params
    }
}

/// A dependency provider under the name of its field.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) field: &'static str,
    pub(crate) provider: Arc<dyn DynProvider>,
}

/// A worker ready to run: injection, `worker_setup`, the method. The outer error is a broken provider's.
pub(super) type Work =
    Box<dyn FnOnce(WorkerContext, Arc<[Bound]>) -> BoxFuture<'static, Result<Outcome>> + Send>;

/// What a container asks of its service. Methods are numbered as the entrypoints that run them.
pub(super) trait Host: Send + Sync {
    fn methods(&self) -> Vec<MethodHandle>;
    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work>;
}

pub(super) struct ServiceHost<S> {
    pub(super) injector: Arc<Injector<S>>,
    pub(super) methods: Vec<Method<S>>,
}

impl<S: Service> Host for ServiceHost<S> {
    fn methods(&self) -> Vec<MethodHandle> {
        let handle = |(index, it): (usize, &Method<S>)| MethodHandle {
            index,
            name: it.name,
            params: it.params,
            expected: it.expected,
            sensitive: it.sensitive,
            raw_message: it.raw_message,
        };
        self.methods.iter().enumerate().map(handle).collect()
    }

    fn prepare(&self, index: usize, arguments: Arguments) -> Result<Work> {
        let method = self
            .methods
            .get(index)
            .ok_or_else(|| Error::MethodNotFound(index.to_string()))?;
        let call = arguments
            .bind(method.name, method.params)
            .and_then(|mut args| method.decode(&mut args))
            .map_err(|error| discreet(error, method.sensitive))?;
        let injector = self.injector.clone();
        Ok(Box::new(move |ctx, bound| {
            Box::pin(async move {
                let service = match injector.inject(ctx.clone()).await {
                    Ok(service) => service,
                    Err(error) => return Ok(Err(Fault::of(&error))),
                };
                for it in bound.iter() {
                    it.provider.worker_setup(&ctx).await?;
                }
                Ok(call.run(&service).await)
            })
        }))
    }
}

/// An argument that cannot be read is quoted in the error, which is logged: not where it is sensitive.
fn discreet(error: Error, sensitive: &[&str]) -> Error {
    let quotes = |text: &str| {
        let names = sensitive
            .iter()
            .filter_map(|it| it.split(['.', '[']).next());
        let mut marks = names.map(|name| format!("argument '{name}': "));
        marks.find_map(|mark| text.find(&mark).map(|at| at + mark.len()))
    };
    match error {
        Error::IncorrectSignature(text) => match quotes(&text) {
            Some(end) => Error::IncorrectSignature(format!(
                "{}it is not of the type that the method takes",
                text.get(..end).unwrap_or_default()
            )),
            None => Error::IncorrectSignature(text),
        },
        other => other,
    }
}
