//! The embedded broker: as a program of its own, and for `run` where there is no other.

use std::process::ExitCode;
use std::time::Duration;

use nameko_broker::{Broker, BrokerError};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::arguments::BrokerArguments;
use super::client::{Failure, is_configured};
use super::signals::Signals;
use super::terminal::announce;
use crate::config::Config;

/// Where a broker is looked for, and started, when none is configured.
pub(super) const LOCAL: &str = "127.0.0.1:5672";

/// `nameko broker`: runs until Ctrl-C or SIGTERM.
pub(super) async fn serve(arguments: &BrokerArguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let address = (arguments.host.as_str(), arguments.port);
    let mut builder = Broker::builder();
    if let Some(port) = arguments.management_port {
        builder = builder.management_port(port);
    }
    let broker = builder
        .start(address)
        .await
        .map_err(|error| cannot_listen(&error, arguments))?;
    announce(format_args!("ready at {}", broker.uri()))?;
    if let Some(uri) = broker.management_uri() {
        announce(format_args!("management API at {uri}/api/"))?;
    }
    announce(
        "This broker is for trying out, development and tests: messages live in memory and are gone when it stops.",
    )?;
    announce("Ctrl-C stops it.")?;
    signals.next().await;
    tokio::select! {
        () = broker.stop() => Ok(ExitCode::SUCCESS),
        again = signals.next() => Ok(again.exit_code().map_or(ExitCode::FAILURE, ExitCode::from)),
    }
}

/// Where no broker is configured and none listens at localhost:5672, starts one there.
pub(super) async fn start_if_none(config: &Config) -> Option<Broker> {
    if is_configured(config) {
        None
    } else {
        start_if_none_at(LOCAL).await
    }
}

async fn start_if_none_at(address: &str) -> Option<Broker> {
    if is_there(address).await {
        return None;
    }
    // A failure means that the port was taken meanwhile, or that nobody may listen there: connecting will tell.
    Broker::start(address)
        .await
        .inspect_err(|error| tracing::warn!("no broker could be started: {error}"))
        .ok()
}

/// Whether something listens at the address.
pub(super) async fn is_there(address: &str) -> bool {
    matches!(
        timeout(Duration::from_secs(2), TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

fn cannot_listen(error: &BrokerError, arguments: &BrokerArguments) -> Failure {
    let source =
        std::error::Error::source(error).and_then(|it| it.downcast_ref::<std::io::Error>());
    let host = &arguments.host;
    let (port, option) = match error {
        BrokerError::ListenManagement { port, .. } => (*port, "--management-port"),
        _ => (arguments.port, "--port"),
    };
    let Some(source) = source else {
        return Failure::new("Error", error.to_string());
    };
    let failure = Failure::new("Error", format!("can't listen on {host}:{port}: {source}"));
    match source.kind() {
        std::io::ErrorKind::AddrInUse => failure
            .hint(format!("another broker may be running there: use that one, or take another port with {option} (0 is any free one)")),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_is_started_only_where_none_listens() {
        let first = Broker::start("127.0.0.1:0").await.expect("a broker");
        let address = first.addr().to_string();
        assert!(
            start_if_none_at(&address).await.is_none(),
            "one is there already"
        );
        first.stop().await;
        let second = start_if_none_at(&address)
            .await
            .expect("a broker of its own");
        assert_eq!(second.addr().to_string(), address);
        second.stop().await;
    }

    #[tokio::test]
    async fn none_is_started_where_one_is_configured() {
        // Nobody listens on port 1.
        let config = Config::new().with("AMQP_URI", "amqp://127.0.0.1:1");
        assert!(start_if_none(&config).await.is_none());
    }
}
