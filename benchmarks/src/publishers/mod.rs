//! Dispatchers of events that wait for the confirm of each one.

pub(crate) mod amqprs;
pub(crate) mod bare_loop;
pub(crate) mod client;
pub(crate) mod lapin;
pub(crate) mod nameko;

/// The body of an event: 100 bytes of JSON.
pub(crate) fn body() -> String {
    "x".repeat(98)
}

/// The service and the type of the events.
pub(crate) const SOURCE: &str = "bench_source";
pub(crate) const EVENT: &str = "happened";

/// The exchange of the events.
pub(crate) const EXCHANGE: &str = "bench_source.events";
