//! The dispatch to a service of a known type.

use std::sync::Arc;

use super::{
    method::MethodHandle,
    service_dispatch::{ServiceDispatch, Work},
};
use crate::{
    arguments::Arguments,
    error::{Error, Result},
    protocol::Fault,
    service::{Injector, Method, Service},
};

pub(super) struct TypedDispatch<S> {
    pub(super) injector: Arc<Injector<S>>,
    pub(super) methods: Vec<Method<S>>,
}

impl<S: Service> ServiceDispatch for TypedDispatch<S> {
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
            .map_err(|error| redact_error(error, method.sensitive))?;
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
fn redact_error(error: Error, sensitive: &[&str]) -> Error {
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
