//! The module `nameko._nameko`: the compiled half of the Python package `nameko`.
//!
//! Connections, topology, confirms, the matching of replies, HTTP, the queue of worker threads and the embedded broker live
//! here, on one I/O thread that never enters Python ([`runtime`]). It pushes into queues; Python threads take from
//! them: [`jobs`] for the workers of a container, [`completions`] for an asyncio loop, [`callbacks`] for callbacks about
//! connections and log records. So nothing that a handler does can hold up heartbeats, acknowledgements, replies or
//! stopping. What Python sees is described in `python/nameko/_nameko.pyi`.
//!
//! Deliberately absent: wire names, serialisation, and every policy of Nameko. Those are Python, where extensions can
//! override them.

mod broker;
mod callbacks;
mod completions;
mod consumers;
mod convert;
mod delivery;
mod error;
mod interrupt;
mod jobs;
mod logs;
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

use pyo3::prelude::*;

/// The compiled half: connections, topology, confirms, reply matching, the worker thread queue, the embedded broker.
#[pymodule(gil_used = false)]
mod _nameko {
    use super::*;

    #[pymodule_export]
    use crate::{
        broker::Broker, completions::Completions, consumers::Consumers, delivery::Delivery,
        error::AmqpError, interrupt::interrupt, jobs::Jobs, logs::on_log, options::Options,
        patch_guard::PatchGuard, pending::Pending, probe::probe, publisher::Publisher,
        reply_listener::ReplyListener, retry::Retry, supervisor::ProcessTable, web::body::HttpBody,
        web::request::HttpRequest, web::server::HttpServer, web::socket::WebSocket,
    };

    /// Closes the publishers, and ends the I/O thread and the thread `nameko-callbacks`. For `atexit`.
    #[pyfunction]
    fn shutdown(py: Python<'_>) -> PyResult<()> {
        py.detach(runtime::shutdown);
        callbacks::stop(py)
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
