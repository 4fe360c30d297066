//! The `tracing` span around one worker.

use std::{fmt, sync::Arc, time::Duration};

use tracing::{Metadata, Span, field};
use tracing_subscriber::{Registry, registry::LookupSpan as _};

use super::method::MethodHandle;
use crate::{reply::Outcome, worker::WorkerContext};

/// The target of spans and events about workers, for log filters.
pub(super) const TARGET: &str = "nameko::worker";

const NAME: &str = "worker";

/// The span of a worker. No filter need want it: it is nothing then.
pub(super) struct WorkerSpan(Span);

/// What a worker's span is about. It lies in the span's extensions, from where our log takes the span's first fields: most
/// calls log nothing, and making the call id and copying the names would be in vain.
pub(crate) struct Worker {
    ctx: WorkerContext,
    entrypoint: Option<Arc<str>>,
}

impl Worker {
    /// Whether it may be the span of a worker.
    pub(crate) fn has(span: &Metadata<'_>) -> bool {
        span.name() == NAME && span.target() == TARGET
    }

    /// The fields that the span has from the start, but for those that this call has not.
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
            .filter_map(|(name, value)| value.map(|it| (name, it)))
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
            if let Some(span) = registry.and_then(|it| it.span(id)) {
                span.extensions_mut().insert(Worker {
                    ctx: ctx.clone(),
                    entrypoint: entrypoint.cloned(),
                });
            }
        });
        Self(span)
    }

    /// Runs `part` inside.
    pub(super) fn in_scope<T>(&self, part: impl FnOnce() -> T) -> T {
        self.0.in_scope(part)
    }

    /// Records what the method ended with after `elapsed`, and says so in the log.
    pub(super) fn end(
        &self,
        ctx: &WorkerContext,
        method: &MethodHandle,
        outcome: &Outcome,
        elapsed: Duration,
    ) {
        // Microseconds are what a clock and a reader can tell apart.
        let duration_ms = elapsed.as_micros() as f64 / 1e3;
        let (name, expected) = match outcome {
            Ok(_) => ("ok", None),
            Err(fault) => {
                let name = fault.exc_type.as_str();
                (name, Some(method.expects(fault)))
            }
        };
        tracing::record_all!(self.0, outcome = name, expected, duration_ms);
        // A filter that drops the span keeps errors: they tell whose they are.
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

/// Made when somebody wants to see it.
struct CallId<'a>(&'a WorkerContext);

impl fmt::Display for CallId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.call_id())
    }
}
