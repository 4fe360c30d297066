//! The embedded broker: the command `broker`, and the fallback of `run`.

use std::net::SocketAddr;
use std::process::ExitCode;

#[cfg(feature = "tls")]
use nameko_broker::Tls;
use nameko_broker::{Broker, BrokerError};

use super::arguments::BrokerArguments;
#[cfg(feature = "tls")]
use super::arguments::TlsArguments;
use super::endpoint::{LOCAL, is_configured, is_there};
use super::failure::Failure;
use super::signals::Signals;
use super::terminal::announce;
use crate::config::Config;

/// Runs `nameko broker` until Ctrl-C or SIGTERM.
pub(super) async fn serve(arguments: &BrokerArguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let addresses = resolve(arguments).await?;
    let mut builder = Broker::builder();
    if let Some(port) = arguments.management_port {
        builder = builder.management_port(port);
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = tls(&arguments.tls) {
        builder = builder.tls(tls);
    }
    let broker = builder
        .start(&addresses[..])
        .await
        .map_err(|error| cannot_start(&error, arguments))?;
    announce(format_args!("ready at {}", broker.uri()))?;
    for address in broker.addrs().iter().skip(1) {
        announce(format_args!("also listening on {address}"))?;
    }
    #[cfg(feature = "tls")]
    if let Some(uri) = broker.tls_uri() {
        announce(format_args!("TLS at {uri}"))?;
    }
    if let Some(uri) = broker.management_uri() {
        announce(format_args!("management API at {uri}/api/"))?;
    }
    announce(
        "This broker is for development and tests: messages are kept in memory and lost on exit.",
    )?;
    announce("Press Ctrl-C to stop.")?;
    signals.next().await;
    tokio::select! {
        () = broker.stop() => Ok(ExitCode::SUCCESS),
        again = signals.next() => Ok(again.exit_code().map_or(ExitCode::FAILURE, ExitCode::from)),
    }
}

/// Starts a broker at localhost:5672 if none is configured and none listens there.
pub(super) async fn start_if_none(config: &Config) -> Result<Option<Broker>, Failure> {
    if is_configured(config) {
        Ok(None)
    } else {
        Ok(start_if_none_at(LOCAL).await)
    }
}

async fn start_if_none_at(address: &str) -> Option<Broker> {
    if is_there(address).await {
        return None;
    }
    // The port may have been taken meanwhile, or be forbidden: connecting reports the error.
    Broker::start(address)
        .await
        .inspect_err(|error| tracing::warn!("cannot start the embedded broker: {error}"))
        .ok()
}

/// Returns the addresses of all hosts.
async fn resolve(arguments: &BrokerArguments) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for host in &arguments.host {
        let resolved = nameko_broker::resolve(host, arguments.port).await;
        addresses.extend(resolved.map_err(|error| {
            Failure::new("Error", format!("cannot resolve the host {host}: {error}"))
        })?);
    }
    Ok(addresses)
}

/// Returns the TLS port, if one is wanted.
#[cfg(feature = "tls")]
fn tls(arguments: &TlsArguments) -> Option<Tls> {
    let (port, certfile) = (arguments.tls_port?, arguments.certfile.as_ref()?);
    let keyfile = arguments.keyfile.as_ref().unwrap_or(certfile);
    let tls = Tls::new(certfile, keyfile).port(port);
    Some(match &arguments.cacertfile {
        None => tls,
        Some(file) if arguments.fail_if_no_peer_cert => tls.require_client_certificates(file),
        Some(file) => tls.request_client_certificates(file),
    })
}

fn cannot_start(error: &BrokerError, arguments: &BrokerArguments) -> Failure {
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let host = arguments.host.join(", ");
    let (port, option) = match error {
        BrokerError::ListenManagement { port, .. } => (*port, "--management-port"),
        #[cfg(feature = "tls")]
        BrokerError::ListenTls { port, .. } => (*port, "--tls-port"),
        _ => (arguments.port, "--port"),
    };
    let Some(source) = source else {
        return Failure::new("Error", error.to_string());
    };
    let failure = Failure::new("Error", format!("cannot listen on {host}:{port}: {source}"));
    match source.kind() {
        std::io::ErrorKind::AddrInUse => failure
            .hint(format!("another broker may be running there: use it, or choose another port with {option} (0 for a free one)")),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_a_broker_only_if_none_listens() {
        let first = Broker::start("127.0.0.1:0").await.expect("a broker");
        let address = first.addr().to_string();
        assert!(
            start_if_none_at(&address).await.is_none(),
            "a broker already listens there"
        );
        first.stop().await;
        let second = start_if_none_at(&address).await.expect("a new broker");
        assert_eq!(second.addr().to_string(), address);
        second.stop().await;
    }

    #[tokio::test]
    async fn starts_no_broker_if_one_is_configured() {
        // Nothing listens on port 1.
        let config = Config::new().with("AMQP_URI", "amqp://127.0.0.1:1");
        assert!(start_if_none(&config).await.expect("no failure").is_none());
    }
}
