//! Dispatch to a service of a known type.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    method::MethodHandle,
    service_dispatch::{ServiceDispatch, Work},
};
use crate::{
    arguments::Arguments,
    error::{Error, Result},
    protocol::Fault,
    reply::Outcome,
    service::{Call, Injector, Method, Service},
    worker::WorkerContext,
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
        let call = self.prepare_call(index, arguments)?;
        let injector = self.injector.clone();
        Ok(Box::new(move |worker| {
            Box::pin(async move {
                let service = injector.inject(worker.ctx.clone()).await?;
                worker.set_up().await?;
                Ok(match call {
                    Prepared::Decoded(call) => call.run(&service).await,
                    Prepared::Undecoded(call) => call.run(&worker.ctx, &service).await,
                })
            })
        }))
    }
}

impl<S: Service> TypedDispatch<S> {
    fn prepare_call(&self, index: usize, mut arguments: Arguments) -> Result<Prepared<S>> {
        let method = self.methods.get(index).ok_or_else(|| unknown(index))?;
        if !method.extractors.need_worker() || !arguments.has_origin() {
            return bind(method, arguments).map(Prepared::Decoded);
        }
        if let Some(origin) = arguments.origin_mut() {
            method.extractors.extract_before_worker(origin)?;
        }
        Ok(Prepared::Undecoded(Box::new(UndecodedCall {
            methods: self.methods.clone(),
            index,
            arguments,
        })))
    }
}

enum Prepared<S> {
    Decoded(Call<S>),
    /// Boxed, since it is large and rare.
    Undecoded(Box<UndecodedCall<S>>),
}

/// A call whose worker extracts arguments itself.
struct UndecodedCall<S> {
    methods: Arc<[Method<S>]>,
    index: usize,
    arguments: Arguments,
}

impl<S: Service> UndecodedCall<S> {
    fn run<'a>(
        mut self: Box<Self>,
        ctx: &'a WorkerContext,
        service: &'a S,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.extract(ctx, service).await?;
            let Self {
                methods,
                index,
                arguments,
            } = *self;
            let method = methods.get(index).ok_or_else(|| unknown(index));
            let call = method.and_then(|method| bind(method, arguments));
            call.map_err(|error| Fault::of(&error))?.run(service).await
        })
    }

    async fn extract(&mut self, ctx: &WorkerContext, service: &S) -> Result<(), Fault> {
        let method = self.methods.get(self.index);
        if let (Some(method), Some(origin)) = (method, self.arguments.origin_mut()) {
            let extracted = method.extractors.extract_in_worker(origin, ctx, service);
            extracted.await.map_err(|error| Fault::of(&error))?;
        }
        Ok(())
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
