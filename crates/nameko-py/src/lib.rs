//! The module `nameko._nameko`: the compiled half of the Python package `nameko`.
//!
//! It runs connections, topology, confirms, reply matching, HTTP, the queue of worker threads and
//! the embedded broker on one I/O thread that never enters Python ([`runtime`]). That thread pushes
//! into queues that Python threads drain: [`jobs`] for the workers of a container, [`completions`]
//! for an asyncio loop, [`callbacks`] for connection events and log records. So no handler can
//! delay heartbeats, acknowledgements, replies or a stop. The Python API is documented in
//! `python/nameko/_nameko.pyi`.
//!
//! Deliberately absent: wire names, serialisation, and every policy of Nameko. They are written in
//! Python, where extensions can override them.

mod broker;
mod callbacks;
mod completions;
mod consumers;
mod context_data;
mod convert;
mod death_history;
mod delivery;
mod error;
mod finalization;
mod interrupt;
mod jobs;
mod logs;
mod loop_deliveries;
mod options;
mod patch_guard;
mod pending;
mod probe;
mod promise;
mod publisher;
mod reply_batch;
mod reply_listener;
mod reply_table;
mod retry;
mod runtime;
mod scheduler;
mod supervisor;
mod wait;
mod web;

use nameko::internal;
use pyo3::prelude::*;

/// The compiled module: connections, topology, confirms, reply matching, worker queue, HTTP server,
/// embedded broker.
#[pymodule(gil_used = false)]
mod _nameko {
    use super::*;

    #[pymodule_export]
    use crate::{
        broker::Broker, completions::Completions, consumers::Consumers,
        context_data::decode_from_headers, delivery::Delivery, error::AmqpError,
        interrupt::current_frame, interrupt::interrupt, jobs::JobRunner, jobs::Jobs,
        jobs::flush_replies, jobs::hold_replies, logs::on_log, loop_deliveries::LoopDeliveries,
        options::Options, patch_guard::PatchGuard, pending::Pending, probe::probe,
        publisher::Publisher, reply_listener::ReplyListener, retry::Retry,
        supervisor::ProcessTable, web::body::HttpBody, web::loop_requests::LoopRequests,
        web::request::HttpRequest, web::routes::Routes, web::server::HttpServer,
        web::socket::WebSocket,
    };

    /// Announces the end of the interpreter to the threads of this module, then calls `shutdown()`.
    /// For `atexit`.
    #[pyfunction]
    fn finalize(py: Python<'_>) -> PyResult<()> {
        finalization::begin(py);
        shutdown(py)
    }

    /// Closes the publishers, and ends the I/O thread and the thread `nameko-callbacks`.
    #[pyfunction]
    fn shutdown(py: Python<'_>) -> PyResult<()> {
        py.detach(runtime::shutdown);
        callbacks::stop(py)
    }

    /// Returns the configuration keys of the framework.
    #[pyfunction]
    fn config_keys() -> Vec<&'static str> {
        internal::KEYS.to_vec()
    }

    /// Returns the configuration key of the framework that `key` misspells.
    #[pyfunction]
    fn misspelled_key(key: &str) -> Option<&'static str> {
        internal::misspelled(key)
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
