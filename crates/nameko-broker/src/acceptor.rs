//! Accepting clients on a listener, with or without TLS.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[cfg(feature = "tls")]
use crate::tls_acceptor::{TlsAcceptor, TlsHandshake};
use crate::{
    broker_state::{BrokerState, ConnectionGuard},
    transport,
};

/// Reply text of connections that end with the broker.
pub(crate) const SHUTDOWN_REASON: &str = "broker forced connection closure with reason 'shutdown'";

/// A listener.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    #[cfg(feature = "tls")]
    tls: Option<TlsAcceptor>,
}

/// An accepted client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// The peer's and the local address.
    addrs: Option<(SocketAddr, SocketAddr)>,
    #[cfg(feature = "tls")]
    tls: Option<TlsHandshake>,
}

impl Acceptor {
    pub(crate) fn plain(listener: TcpListener) -> Self {
        Self {
            listener,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(listener: TcpListener, tls: TlsAcceptor) -> Self {
        Self {
            listener,
            tls: Some(tls),
        }
    }

    /// Accepts the next client. Waits while too many TLS handshakes are in progress. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<Client> {
        #[cfg(feature = "tls")]
        let tls = match &self.tls {
            Some(tls) => tls.reserve().await,
            None => None,
        };
        let (stream, peer) = self.listener.accept().await?;
        tracing::debug!(%peer, "client connected");
        // Small frames must not be delayed.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok(Client {
            addrs: stream.local_addr().map(|local| (peer, local)).ok(),
            stream,
            #[cfg(feature = "tls")]
            tls,
        })
    }
}

impl Client {
    /// Serves the client until it disconnects or is closed.
    pub(crate) async fn serve(self, broker: Arc<BrokerState>, stop: watch::Receiver<bool>) {
        #[cfg(feature = "tls")]
        if let Some(handshake) = self.tls {
            let timeout = broker.settings.handshake_timeout;
            let peer = self.addrs.map(|(peer, _)| peer);
            let shaken = handshake.perform(self.stream, peer, timeout, stop.clone());
            if let Some((stream, external)) = shaken.await {
                let guard = register(&broker, self.addrs, true, &stop);
                transport::serve_tls(stream, external, guard).await;
            }
            return;
        }
        let guard = register(&broker, self.addrs, false, &stop);
        transport::serve(self.stream, guard).await;
    }
}

/// Registers a connection, which a stopping broker closes at once.
fn register(
    broker: &Arc<BrokerState>,
    addrs: Option<(SocketAddr, SocketAddr)>,
    tls: bool,
    stop: &watch::Receiver<bool>,
) -> ConnectionGuard {
    let guard = broker.register(addrs, tls);
    // Checked after the registration: the accept loop closes those that it finds registered.
    if *stop.borrow() {
        guard.send_buffer.force_close(SHUTDOWN_REASON);
    }
    guard
}
