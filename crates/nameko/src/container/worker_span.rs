//! The `tracing` span of a worker.

use std::{fmt, sync::Arc, time::Duration};

use tracing::{Span, field};

use super::method::MethodHandle;
use crate::{error_chain::Causes, reply::Outcome, worker::WorkerContext};

/// The target of spans and events about workers, for log filters.
pub(super) const TARGET: &str = "nameko::worker";

pub(super) const NAME: &str = "worker";

/// The span of a worker. Disabled if no filter enables it.
pub(super) struct WorkerSpan(Span);

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
        Self(span)
    }

    #[cfg(feature = "cli")]
    pub(super) fn get(&self) -> &Span {
        &self.0
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
                let causes = Causes(fault.causes());
                tracing::warn!(target: TARGET, call_id = call_id(), "(expected) error handling worker {ctx}: {name}: {fault}{causes}");
            }
            (Err(fault), _) => {
                let causes = Causes(fault.causes());
                tracing::error!(target: TARGET, call_id = call_id(), "error handling worker {ctx}: {name}: {fault}{causes}");
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
