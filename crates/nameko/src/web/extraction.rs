//! Extraction of the arguments of `#[http]` methods, for generated code.
//!
//! The kind of an argument follows from its type: [`HttpArgument::KIND`] is [`InWorker`] for types
//! with [`AsyncFromRequest`], else [`BeforeWorker`]. Both have the same functions, each with the
//! bound on the type that the compiler then reports.

use std::{any::Any, marker::PhantomData};

use futures_util::future::BoxFuture;

use super::{AsyncFromRequest, FromRequest, Request};
use crate::{
    arguments::Args,
    error::{Error, Result},
    extractor::{self, Extractor, Origin},
    worker::WorkerContext,
};

/// An argument of type `T` of a method of the service `S`.
pub struct HttpArgument<S, T>(PhantomData<fn() -> (S, T)>);

impl<S, T: AsyncFromRequest<S>> HttpArgument<S, T> {
    /// The kind of the argument, which shadows [`DefaultKind::KIND`].
    pub const KIND: InWorker = InWorker;
}

/// The kind of arguments that need no worker.
pub trait DefaultKind {
    /// The kind of the argument.
    const KIND: BeforeWorker = BeforeWorker;
}

impl<S, T> DefaultKind for HttpArgument<S, T> {}

/// Kind of an argument that is extracted before the worker begins.
#[derive(Clone, Copy)]
pub struct BeforeWorker;

/// Kind of an argument that is extracted in the worker.
#[derive(Clone, Copy)]
pub struct InWorker;

#[expect(
    clippy::extra_unused_type_parameters,
    reason = "generated code calls the same functions of both kinds"
)]
impl BeforeWorker {
    /// Extracts the argument.
    pub fn extract<S, T: FromRequest>(self, args: &mut Args, name: &'static str) -> Result<T> {
        let request = origin(args, name)?;
        if let Some(value) = request.take_extracted(name) {
            return Ok(value);
        }
        let value = T::from_request(request, name);
        match request.body_was_requested() {
            true => Err(streamed(name)),
            false => value,
        }
    }

    /// Describes the argument.
    pub const fn extractor<S, T: FromRequest>(self, name: &'static str) -> Extractor {
        fn early<T: FromRequest>(origin: &mut Origin, name: &'static str) -> Result<()> {
            let Some(request) = origin.downcast_mut::<Request>() else {
                return Ok(());
            };
            // The stream of the body is extracted last.
            if T::STREAMS_BODY {
                return Ok(());
            }
            let value = T::from_request(request, name);
            keep(request, name, value)
        }
        Extractor {
            name,
            streams: T::STREAMS_BODY,
            early: early::<T>,
            in_worker: None,
        }
    }

    /// Returns `true` if the argument may be any parameter of the path.
    pub const fn reads_path<S, T: FromRequest>(self) -> bool {
        T::READS_PATH
    }
}

impl InWorker {
    /// Returns the argument, which the worker has extracted.
    pub fn extract<S, T: AsyncFromRequest<S>>(
        self,
        args: &mut Args,
        name: &'static str,
    ) -> Result<T> {
        let extracted = origin(args, name)?.take_extracted(name);
        extracted.ok_or_else(|| streamed(name))
    }

    /// Describes the argument.
    pub const fn extractor<S, T>(self, name: &'static str) -> Extractor
    where
        S: Send + Sync + 'static,
        T: AsyncFromRequest<S>,
    {
        fn extract<'a, S, T>(
            origin: &'a mut Origin,
            name: &'static str,
            worker: &'a WorkerContext,
            service: &'a (dyn Any + Send + Sync),
        ) -> BoxFuture<'a, Result<()>>
        where
            S: Send + Sync + 'static,
            T: AsyncFromRequest<S>,
        {
            Box::pin(async move {
                let (Some(request), Some(service)) =
                    (origin.downcast_mut::<Request>(), service.downcast_ref())
                else {
                    return Ok(());
                };
                if request.has_extracted(name) {
                    return Ok(());
                }
                let value = T::from_request(request, name, worker, service).await;
                keep(request, name, value)
            })
        }
        Extractor {
            name,
            streams: T::STREAMS_BODY,
            early: |_, _| Ok(()),
            in_worker: Some(extractor::InWorker {
                extract: extract::<S, T>,
                read_body,
            }),
        }
    }

    /// Returns `true` if the argument may be any parameter of the path.
    pub const fn reads_path<S, T: AsyncFromRequest<S>>(self) -> bool {
        T::READS_PATH
    }
}

/// Keeps an extracted argument, or its error, unless it is extracted again with the body.
fn keep<T: Any + Send>(request: &Request, name: &'static str, value: Result<T>) -> Result<()> {
    if !request.body_was_requested() {
        request.keep_extracted(name, value?);
    }
    Ok(())
}

fn read_body(origin: &mut Origin) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        if let Some(request) = origin.downcast_mut::<Request>() {
            request.read_body().await?;
        }
        Ok(())
    })
}

fn origin<'a>(args: &'a mut Args, name: &str) -> Result<&'a mut Request> {
    args.origin().ok_or_else(|| {
        Error::IncorrectSignature(format!(
            "the parameter `{name}` requires an HTTP request; in a test, pass one to the hook with `request`"
        ))
    })
}

fn streamed(name: &str) -> Error {
    Error::Declaration(format!(
        "the parameter `{name}` needs the whole body, which another parameter streams"
    ))
}
