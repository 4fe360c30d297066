//! Tests of the client on a broker, and on servers that misbehave.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod proxy;
mod support;

mod basics;
mod failures;
mod peers;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod without_tls;
