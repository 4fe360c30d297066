//! The fields of a worker's span, for the log of `nameko::main`.

use std::sync::Arc;

use tracing::{Metadata, Span};
use tracing_subscriber::{Registry, registry::LookupSpan as _};

use super::worker_span::{NAME, TARGET};
use crate::{
    cli::InstalledLog,
    worker::{Ended, WorkerContext},
};

/// The fields of a worker's span, in the extensions of the span.
///
/// Most calls log nothing, so the log formats the fields only when it writes a line.
pub(crate) struct WorkerFields {
    ctx: WorkerContext,
    entrypoint: Option<Arc<str>>,
}

impl WorkerFields {
    /// Adds the fields to the extensions of `span`, if the subscriber has a registry. Returns
    /// whether no other layer has to record fields.
    pub(super) fn attach(span: &Span, ctx: &WorkerContext, entrypoint: Option<&Arc<str>>) -> bool {
        let attached = span.with_subscriber(|(id, subscriber)| {
            let registry = subscriber.downcast_ref::<Registry>();
            if let Some(span) = registry.and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(Self {
                    ctx: ctx.clone(),
                    entrypoint: entrypoint.cloned(),
                });
            }
            subscriber.is::<InstalledLog>()
        });
        attached.unwrap_or_default()
    }

    /// Whether `span` is the span of a worker, unless another crate uses the same name and target.
    pub(crate) fn may_describe(span: &Metadata<'_>) -> bool {
        span.name() == NAME && span.target() == TARGET
    }

    /// Returns the fields at the end of the method.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ctx.ended()
    }

    /// Returns the initial fields with a value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { ctx, entrypoint } = self;
        let fields = [
            ("service", Some(ctx.service_name())),
            ("method", Some(ctx.method_name())),
            ("entrypoint", entrypoint.as_deref()),
            ("call_id", Some(ctx.call_id())),
            ("parent", ctx.immediate_parent_call_id()),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}
