//! A tracing layer that writes a line for each event.

use std::borrow::Cow;

use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::{Context, Layer},
    registry::{Extensions, LookupSpan, Scope, SpanRef},
};

use super::{
    super::arguments::LogFormat,
    fields::{Fields, Value},
    line::{Line, Span},
};
use crate::container::WorkerFields;

/// Target of events from the crate `log` in [`tracing_subscriber`]; a field holds their own target.
const BRIDGED: &str = "log";

/// A layer that stores the fields of spans and writes events as lines.
pub(crate) struct Log<W> {
    pub(super) format: LogFormat,
    /// Number of this process under a supervisor.
    pub(super) process: Option<u16>,
    /// Whether the text format uses colours.
    pub(super) colours: bool,
    /// Called once per line, with the line end.
    pub(super) write: W,
}

impl<S, W> Layer<S> for Log<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if WorkerFields::may_describe(attributes.metadata()) {
            return;
        }
        let expected = attributes.metadata().fields().len();
        let fields = Fields::new(expected, |visitor| attributes.record(visitor));
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, ctx: Context<'_, S>) {
        // Before taking the lock: the `Debug` of a value may log too.
        let later = Fields::new(record.len(), |visitor| record.record(visitor));
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<Fields>() {
            Some(fields) => fields.update(later),
            None => extensions.insert(later),
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let fields = Fields::new(metadata.fields().len(), |visitor| event.record(visitor));
        let target = match metadata.target() {
            BRIDGED => fields.get("log.target").and_then(|target| target.as_str()),
            _ => None,
        };
        let scope = ctx.event_scope(event).into_iter();
        let spans: Vec<_> = scope.flat_map(Scope::from_root).collect();
        let kept: Vec<_> = spans.iter().map(SpanRef::extensions).collect();
        let line = Line {
            time: now(),
            level: *metadata.level(),
            target: target.unwrap_or(metadata.target()),
            process: self.process,
            fields: &fields,
            spans: spans
                .iter()
                .zip(&kept)
                .map(|(span, kept)| Span {
                    name: span.name(),
                    fields: all_fields(kept),
                })
                .collect(),
        };
        let text = match self.format {
            LogFormat::Text => line.text(self.colours),
            LogFormat::Json => line.json(),
        };
        (self.write)(&text);
    }
}

/// Returns the fields of a span from its extensions.
fn all_fields<'a>(kept: &'a Extensions<'_>) -> Cow<'a, Fields> {
    let recorded = kept.get::<Fields>();
    match (kept.get::<WorkerFields>(), recorded) {
        (Some(worker), recorded) => {
            let mut fields = Fields::of(worker.iter());
            if let Some(ended) = worker.ended() {
                fields.set("outcome", Value::Text(ended.outcome.as_ref().into()));
                if let Some(expected) = ended.expected {
                    fields.set("expected", Value::Bool(expected));
                }
                fields.set("duration_ms", Value::Float(ended.duration_ms));
            }
            if let Some(later) = recorded {
                fields.update(later.clone());
            }
            Cow::Owned(fields)
        }
        (None, Some(fields)) => Cow::Borrowed(fields),
        (None, None) => Cow::Owned(Fields::default()),
    }
}

fn now() -> String {
    let mut time = String::new();
    // Writing to a `String` cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}
