//! The `tracing` span of a worker.

use std::{fmt, sync::Arc, time::Duration};

use tracing::{Metadata, Span, field};
use tracing_subscriber::{Registry, registry::LookupSpan as _};

use super::method::MethodHandle;
use crate::{reply::Outcome, worker::WorkerContext};

/// The target of spans and events about workers, for log filters.
pub(super) const TARGET: &str = "nameko::worker";

const NAME: &str = "worker";

/// The span of a worker. Disabled if no filter enables it.
pub(super) struct WorkerSpan(Span);

/// The worker of a span, kept in the extensions of the span. The log formatter reads the span's
/// initial fields from it, which avoids formatting the call id and copying the names for the many
/// calls that log nothing.
pub(crate) struct Worker {
    ctx: WorkerContext,
    entrypoint: Option<Arc<str>>,
}

impl Worker {
    /// Returns `true` if the span may be the span of a worker.
    pub(crate) fn has(span: &Metadata<'_>) -> bool {
        span.name() == NAME && span.target() == TARGET
    }

    /// Iterates over the initial fields of the span, without absent ones.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
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

impl WorkerSpan {
    pub(super) fn new(ctx: &WorkerContext, entrypoint: Option<&Arc<str>>) -> Self {
        let span = tracing::info_span!(
            target: TARGET,
            NAME,
            service = ctx.service_name(),
            method = ctx.method_name(),
            entrypoint = entrypoint.map(AsRef::<str>::as_ref),
            call_id = field::display(CallId(ctx)),
            parent = ctx.immediate_parent_call_id(),
            outcome = field::Empty,
            expected = field::Empty,
            duration_ms = field::Empty,
        );
        span.with_subscriber(|(id, subscriber)| {
            let registry = subscriber.downcast_ref::<Registry>();
            if let Some(span) = registry.and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(Worker {
                    ctx: ctx.clone(),
                    entrypoint: entrypoint.cloned(),
                });
            }
        });
        Self(span)
    }

    /// Runs `part` inside the span.
    pub(super) fn in_scope<T>(&self, part: impl FnOnce() -> T) -> T {
        self.0.in_scope(part)
    }

    /// Records and logs the outcome of the method.
    pub(super) fn end(
        &self,
        ctx: &WorkerContext,
        method: &MethodHandle,
        outcome: &Outcome,
        elapsed: Duration,
    ) {
        // Rounded to microseconds.
        let duration_ms = elapsed.as_micros() as f64 / 1e3;
        let (name, expected) = match outcome {
            Ok(_) => ("ok", None),
            Err(fault) => {
                let name = fault.exc_type.as_str();
                (name, Some(method.expects(fault)))
            }
        };
        tracing::record_all!(self.0, outcome = name, expected, duration_ms);
        // Without a span, which a filter may disable, the error event itself has the call id.
        let call_id = || self.0.is_disabled().then(|| ctx.call_id());
        match (outcome, expected) {
            (Err(fault), Some(true)) => {
                tracing::warn!(target: TARGET, call_id = call_id(), "(expected) error handling worker {ctx}: {name}: {fault}");
            }
            (Err(fault), _) => {
                tracing::error!(target: TARGET, call_id = call_id(), "error handling worker {ctx}: {name}: {fault}");
            }
            (Ok(_), _) => tracing::debug!(target: TARGET, duration_ms, "worker {ctx} ended"),
        }
    }
}

/// Creates the call id only when it is displayed.
struct CallId<'a>(&'a WorkerContext);

impl fmt::Display for CallId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.call_id())
    }
}
