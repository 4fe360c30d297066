//! Parameters that are extracted from the origin of a call.

use std::{any::Any, fmt};

use futures_util::future::BoxFuture;

use crate::{error::Result, worker::WorkerContext};

/// The [origin](crate::Args::origin) of a call.
pub(crate) type Origin = dyn Any + Send;

/// A parameter that is extracted from the [origin](crate::Args::origin) of a call by its type, such
/// as that of an `#[http]` method.
#[derive(Clone, Copy)]
#[doc(hidden)]
pub struct Extractor {
    pub(crate) name: &'static str,
    /// Whether the parameter streams the body of the origin.
    pub(crate) streams: bool,
    /// Extracts the parameter before the body of the origin is read, if it does not need that.
    pub(crate) early: fn(&mut Origin, &'static str) -> Result<()>,
    /// The extraction of a parameter that needs the worker.
    pub(crate) in_worker: Option<InWorker>,
}

/// The extraction of a parameter that needs the worker and the service, a value of the type that
/// has the method.
#[derive(Clone, Copy)]
pub(crate) struct InWorker {
    /// Extracts the parameter, unless it was extracted before, or needs the body and that is not
    /// read.
    pub(crate) extract: for<'a> fn(
        &'a mut Origin,
        &'static str,
        &'a WorkerContext,
        &'a (dyn Any + Send + Sync),
    ) -> BoxFuture<'a, Result<()>>,
    /// Reads the body of the origin.
    pub(crate) read_body: for<'a> fn(&'a mut Origin) -> BoxFuture<'a, Result<()>>,
}

/// The extractors of a method's parameters, in their order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extractors {
    pub(crate) list: &'static [Extractor],
    /// Index of the first parameter that needs the worker.
    worker_from: usize,
}

impl Extractors {
    pub(crate) fn of(list: &'static [Extractor]) -> Self {
        let first = list.iter().position(|param| param.in_worker.is_some());
        Self {
            list,
            worker_from: first.unwrap_or(list.len()),
        }
    }

    /// Returns `true` if a parameter needs the worker.
    pub(crate) fn need_worker(&self) -> bool {
        self.worker_from < self.list.len()
    }

    /// Extracts the parameters before the first that needs the worker, as far as they do not need
    /// the body.
    pub(crate) fn extract_before_worker(&self, origin: &mut Origin) -> Result<()> {
        let (before, _) = self.list.split_at(self.worker_from);
        before
            .iter()
            .try_for_each(|param| (param.early)(origin, param.name))
    }

    /// Extracts the other parameters in order: first those that do not need the body, then, with
    /// the body, those that need the worker too. The remaining ones need only the body.
    pub(crate) async fn extract_in_worker<S: Any + Send + Sync>(
        &self,
        origin: &mut Origin,
        ctx: &WorkerContext,
        service: &S,
    ) -> Result<()> {
        let (_, params) = self.list.split_at(self.worker_from);
        for param in params {
            match param.in_worker {
                Some(worker) if !param.streams => {
                    (worker.extract)(origin, param.name, ctx, service).await?;
                }
                _ => (param.early)(origin, param.name)?,
            }
        }
        if let Some(worker) = params.iter().find_map(|param| param.in_worker) {
            (worker.read_body)(origin).await?;
        }
        for param in params {
            if let Some(worker) = param.in_worker {
                (worker.extract)(origin, param.name, ctx, service).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Extractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extractor")
            .field("name", &self.name)
            .field("streams", &self.streams)
            .field("in_worker", &self.in_worker.is_some())
            .finish_non_exhaustive()
    }
}
