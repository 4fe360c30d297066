//! Dispatch to a service of a known type.

use std::sync::Arc;

use super::{
    method::MethodHandle,
    service_dispatch::{ServiceDispatch, Work},
};
use crate::{
    arguments::Arguments,
    error::{Error, Result},
    protocol::Fault,
    service::{Call, Injector, Method, Service},
};

pub(super) struct TypedDispatch<S> {
    pub(super) injector: Arc<Injector<S>>,
    pub(super) methods: Arc<[Method<S>]>,
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
        let method = self.methods.get(index).ok_or_else(|| unknown(index))?;
        if method.extractors.need_worker() && arguments.has_origin() {
            return self.prepare_in_worker(index, method, arguments);
        }
        let call = bind(method, arguments)?;
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

impl<S: Service> TypedDispatch<S> {
    /// Prepares a worker that extracts arguments itself.
    fn prepare_in_worker(
        &self,
        index: usize,
        method: &Method<S>,
        mut arguments: Arguments,
    ) -> Result<Work> {
        if let Some(origin) = arguments.origin_mut() {
            method.extractors.extract_before_worker(origin)?;
        }
        let (injector, methods) = (self.injector.clone(), self.methods.clone());
        Ok(Box::new(move |worker| {
            Box::pin(async move {
                let service = injector.inject(worker.ctx.clone()).await?;
                worker.set_up().await?;
                let method = methods.get(index).ok_or_else(|| unknown(index))?;
                if let Some(origin) = arguments.origin_mut() {
                    let extractors = &method.extractors;
                    let extracted = extractors.extract_in_worker(origin, &worker.ctx, &service);
                    if let Err(error) = extracted.await {
                        return Ok(Err(Fault::of(&error)));
                    }
                }
                match bind(method, arguments) {
                    Ok(call) => Ok(call.run(&service).await),
                    Err(error) => Ok(Err(Fault::of(&error))),
                }
            })
        }))
    }
}

/// Binds the arguments to the parameters of the method, and decodes them.
fn bind<S>(method: &Method<S>, arguments: Arguments) -> Result<Call<S>> {
    arguments
        .bind(method.name, method.params)
        .and_then(|mut args| method.decode(&mut args))
        .map_err(|error| redact_error(error, method.sensitive))
}

fn unknown(index: usize) -> Error {
    Error::MethodNotFound(index.to_string())
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
