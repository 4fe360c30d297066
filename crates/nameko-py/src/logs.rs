//! Log records of the compiled half, passed to Python's `logging` on the thread `nameko-callbacks`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::callbacks;

/// The callback for log records; none before `on_log`.
static CALLBACK: Mutex<Option<Arc<Py<PyAny>>>> = Mutex::new(None);

/// The lowest level of `logging` that is passed to the callback.
static MIN_LEVEL: AtomicU8 = AtomicU8::new(u8::MAX);

/// Registers `callback(level, logger, text)` for the log records of the compiled half from `level`
/// on, with the numbers and names of `logging`, as for `logging.getLogger(logger).log(level,
/// text)`. Replaces the previous callback.
#[pyfunction]
#[pyo3(signature = (callback, level = 30))]
pub(crate) fn on_log(py: Python<'_>, callback: Py<PyAny>, level: u8) -> PyResult<()> {
    callbacks::ensure_thread(py)?;
    let previous = lock(&CALLBACK).replace(Arc::new(callback));
    drop(previous);
    MIN_LEVEL.store(level, Ordering::Relaxed);
    // Fails if the subscriber is set already.
    let _ = tracing::subscriber::set_global_default(ToPython);
    Ok(())
}

/// A subscriber for the records of this project, which uses no spans.
struct ToPython;

impl Subscriber for ToPython {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The level may change, the target does not.
        if metadata.is_event() && logger(metadata).starts_with("nameko") {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) >= MIN_LEVEL.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(callback) = lock(&CALLBACK).clone() else {
            return;
        };
        let metadata = event.metadata();
        let level = number(*metadata.level());
        let logger = logger(metadata).replace("::", ".");
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        callbacks::post(&callback, move |_| (level, logger, text));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The path of the logging module. This crate is called `_nameko`.
fn logger(metadata: &Metadata<'static>) -> &'static str {
    metadata.target().trim_start_matches('_')
}

/// The number of a level in `logging`.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// The text of a record: `message key=value key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
