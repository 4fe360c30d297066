//! The broker that commands connect to.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Failure;
use crate::amqp;
use crate::config::{Config, DEFAULT_AMQP_URI};

/// Address of the broker if none is configured.
pub(super) const LOCAL: &str = "127.0.0.1:5672";

/// Returns `true` if the user configured a broker.
pub(super) fn is_configured(config: &Config) -> bool {
    config
        .get("AMQP_URI")
        .is_some_and(|value| !value.is_null() && value != "")
}

/// Returns the URI of the broker without the password.
pub(super) fn broker_of(config: &Config) -> String {
    amqp::sanitize(config.amqp_uri().unwrap_or(DEFAULT_AMQP_URI))
}

/// Returns `true` if a TCP server listens at the address.
pub(super) async fn is_there(address: &str) -> bool {
    matches!(
        timeout(Duration::from_secs(2), TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

/// Creates the error of a command that needs a broker, if none is configured and none runs.
pub(super) fn no_broker() -> Failure {
    Failure::new(
        "ConnectionError",
        "no broker is configured, and none runs at localhost:5672",
    )
}
