//! Tests of the client on a broker, and on servers that misbehave.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod proxy;
mod server;
mod support;

mod connecting;
mod consuming;
mod hostile_servers;
mod io_thread;
mod publishing;
mod recovery;
mod rescue;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod without_tls;
