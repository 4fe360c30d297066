//! What the Rust side logs, handed to Python's `logging` on the thread `nameko-callbacks`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::callbacks;
use crate::jobs::Job;
use crate::lock::lock;

/// Where records go; none before `on_log`.
static CALLBACK: Mutex<Option<Arc<Py<PyAny>>>> = Mutex::new(None);

/// The least of `logging`'s levels that is passed on.
static MIN_LEVEL: AtomicU8 = AtomicU8::new(u8::MAX);

/// Has `callback(level, logger, text)` called for each record of the compiled half from `level` on, with `logging`'s
/// numbers and names: `logging.getLogger(logger).log(level, text)` is what it is for. Replaces the callback before.
#[pyfunction]
#[pyo3(signature = (callback, level = 30))]
pub(crate) fn on_log(py: Python<'_>, callback: Py<PyAny>, level: u8) -> PyResult<()> {
    callbacks::ensure(py)?;
    let before = lock(&CALLBACK).replace(Arc::new(callback));
    drop(before);
    MIN_LEVEL.store(level, Ordering::Relaxed);
    // An error means that it is set already.
    let _ = tracing::subscriber::set_global_default(ToPython);
    Ok(())
}

/// Records of this project only; spans are not used in it.
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
        let (level, logger) = (
            number(*metadata.level()),
            logger(metadata).replace("::", "."),
        );
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        callbacks::post(Job::Rust(Box::new(move |py| {
            callback.call1(py, (level, logger, text)).map(drop)
        })));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The module that logs; this crate is called `_nameko`.
fn logger(metadata: &Metadata<'static>) -> &'static str {
    metadata.target().trim_start_matches('_')
}

/// `logging`'s number.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// `message key=value key=value`.
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
