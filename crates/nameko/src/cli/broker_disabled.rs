//! Replaces the embedded broker without the feature `embedded-broker`.

use std::net::SocketAddr;

use super::endpoint::{LOCAL, is_configured, is_there, no_broker};
use super::failure::Failure;
use crate::config::Config;

/// The embedded broker: there is none.
pub(super) enum Broker {}

impl Broker {
    pub(super) fn uri(&self) -> String {
        match *self {}
    }

    pub(super) fn addr(&self) -> SocketAddr {
        match *self {}
    }

    pub(super) async fn stop(self) {
        match self {}
    }
}

/// Fails if no broker is configured and none listens at localhost:5672.
pub(super) async fn start_if_none(config: &Config) -> Result<Option<Broker>, Failure> {
    if is_configured(config) || is_there(LOCAL).await {
        return Ok(None);
    }
    Err(no_broker().hint(
        "configure one: --broker amqp://user:password@host/, or build the program with the feature \
         `embedded-broker` of the crate nameko",
    ))
}
