//! The `tracing` span of a worker.

#[cfg(feature = "cli")]
use std::borrow::Cow;
use std::{fmt, sync::Arc, time::Duration};

use tracing::{Span, field};

use super::method::MethodHandle;
#[cfg(feature = "cli")]
use crate::worker::Ended;
use crate::{error_chain::Causes, reply::Outcome, worker::WorkerContext};

/// The target of spans and events about workers, for log filters.
pub(super) const TARGET: &str = "nameko::worker";

pub(super) const NAME: &str = "worker";

/// The outcome of a worker without an error.
const OK: &str = "ok";

/// The span of a worker. Disabled if no filter enables it.
pub(super) struct WorkerSpan {
    span: Span,
    /// Whether only the log of `nameko::main` sees the span.
    #[cfg(feature = "cli")]
    is_logged_only: bool,
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
        Self {
            #[cfg(feature = "cli")]
            is_logged_only: super::worker_fields::WorkerFields::attach(&span, ctx, entrypoint),
            span,
        }
    }

    /// Runs `part` inside the span.
    pub(super) fn in_scope<T>(&self, part: impl FnOnce() -> T) -> T {
        self.span.in_scope(part)
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
            Ok(_) => (OK, None),
            Err(fault) => {
                let name = fault.exc_type.as_str();
                (name, Some(method.expects(fault)))
            }
        };
        self.record(ctx, name, expected, duration_ms);
        // Without a span, which a filter may disable, the error event itself has the call id.
        let call_id = || self.span.is_disabled().then(|| ctx.call_id());
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

    #[cfg_attr(not(feature = "cli"), expect(unused_variables, reason = "for the log"))]
    fn record(&self, ctx: &WorkerContext, name: &str, expected: Option<bool>, duration_ms: f64) {
        #[cfg(feature = "cli")]
        if self.is_logged_only {
            ctx.set_ended(Ended {
                outcome: match name {
                    OK => Cow::Borrowed(OK),
                    name => Cow::Owned(name.to_owned()),
                },
                expected,
                duration_ms,
            });
            return;
        }
        tracing::record_all!(self.span, outcome = name, expected, duration_ms);
    }
}

/// Creates the call id only when it is displayed.
struct CallId<'a>(&'a WorkerContext);

impl fmt::Display for CallId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.call_id())
    }
}
