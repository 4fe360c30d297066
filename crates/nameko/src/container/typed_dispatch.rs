//! Dispatch to a service of a known type.

use std::sync::Arc;

use super::{
    method::MethodHandle,
    service_dispatch::{ServiceDispatch, Work},
};
use crate::{
    arguments::Arguments,
    error::{Error, Result},
    service::{Injector, Method, Service},
};

pub(super) struct TypedDispatch<S> {
    pub(super) injector: Arc<Injector<S>>,
    pub(super) methods: Vec<Method<S>>,
}

impl<S: Service> ServiceDispatch for TypedDispatch<S> {
    fn methods(&self) -> Vec<MethodHandle> {
        let handle = |(index, method): (usize, &Method<S>)| MethodHandle {
            index,
            name: method.name,
            params: method.params,
            expected: method.expected,
            sensitive: method.sensitive,
            raw_message: method.raw_message,
            extractors: method.extractors,
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
        Ok(Box::new(move |worker| {
            Box::pin(async move {
                let service = injector.inject(worker.ctx.clone()).await?;
                worker.set_up().await?;
                Ok(call.run(&service).await)
            })
        }))
    }
}

/// Removes the quoted value of a sensitive argument from an error, since errors are logged.
fn redact_error(error: Error, sensitive: &[&str]) -> Error {
    let quotes = |text: &str| {
        let names = sensitive
            .iter()
            .filter_map(|path| path.split(['.', '[']).next());
        let mut marks = names.map(|name| format!("argument '{name}': "));
        marks.find_map(|mark| text.find(&mark).map(|at| at + mark.len()))
    };
    match error {
        Error::IncorrectSignature(text) => match quotes(&text) {
            Some(end) => Error::IncorrectSignature(format!(
                "{}does not have the type of the parameter",
                text.get(..end).unwrap_or_default()
            )),
            None => Error::IncorrectSignature(text),
        },
        other => other,
    }
}
