//! The broker: start, accept loop and shutdown.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::ToSocketAddrs, sync::watch, task::JoinSet, time::timeout};

use crate::{
    acceptor::{Acceptor, SHUTDOWN_REASON},
    broker_state::BrokerState,
    listeners,
    settings::{BrokerBuilder, PURPOSE, Settings},
    sync::stopped,
    timers,
};
#[cfg(feature = "tls")]
use crate::{tls, tls_acceptor::TlsAcceptor};

/// Time that connections have to close on shutdown before their tasks are aborted.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Characters that are not percent-encoded in a URI's user, password and vhost.
const URI_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A running in-memory AMQP 0-9-1 broker.
///
/// All its contents are lost when it is [stopped](Broker::stop) or dropped. See the [crate
/// documentation](crate) for its scope.
#[derive(Debug)]
pub struct Broker {
    broker: Arc<BrokerState>,
    /// At least one.
    addrs: Vec<SocketAddr>,
    #[cfg(feature = "management")]
    management_addr: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    tls_addr: Option<SocketAddr>,
    /// Accept loops (owners of the connection tasks), management API and timers of the virtual
    /// hosts. Dropped with the broker, which aborts them.
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

/// Errors of starting a broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address is not available: in use, not local, not permitted, or not resolvable.
    #[error("the broker can't listen on the given address; is another one running there?")]
    Listen {
        /// The underlying I/O error.
        #[source]
        source: io::Error,
    },
    /// The port of the management API is not available.
    #[cfg(feature = "management")]
    #[error(
        "the broker's management API can't listen on port {port}; is another one running there? (0 is any free port)"
    )]
    ListenManagement {
        /// The requested port.
        port: u16,
        /// The underlying I/O error.
        #[source]
        source: io::Error,
    },
    /// The TLS port is not available.
    #[cfg(feature = "tls")]
    #[error(
        "the broker can't listen on the TLS port {port}; is another one running there? (0 is any free port)"
    )]
    ListenTls {
        /// The requested port.
        port: u16,
        /// The underlying I/O error.
        #[source]
        source: io::Error,
    },
    /// A certificate or key cannot be used: missing, malformed, expired, or of another certificate.
    #[cfg(feature = "tls")]
    #[error("{reason}")]
    Tls {
        /// The file, and the problem with it.
        reason: String,
    },
}

/// Statistics of a broker at one point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Number of open connections, including those in the handshake.
    pub connections: usize,
    /// Number of open channels on all connections.
    pub channels: usize,
    /// Queues by virtual host and queue name.
    pub queues: BTreeMap<(String, String), QueueStats>,
}

/// Statistics of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Number of messages ready for delivery.
    pub messages: usize,
    /// Number of messages delivered and not yet acknowledged.
    pub unacked: usize,
    /// Number of consumers.
    pub consumers: usize,
}

impl BrokerBuilder {
    /// Starts a broker that listens on every address of `addr`, see [`resolve`](crate::resolve);
    /// port 0 selects a free port. Its tasks run on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] if the address, the TLS port or the port of the management API is not
    /// available, or if a certificate or key cannot be used.
    pub async fn start(self, addr: impl ToSocketAddrs) -> Result<Broker, BrokerError> {
        Broker::start_with_settings(self.settings, addr).await
    }
}

impl Broker {
    /// Starts a broker with default settings (user guest/guest, virtual host `/`) that listens on
    /// every address of `addr`, such as `"127.0.0.1:0"`; port 0 selects a free port. Its tasks run
    /// on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Listen`] if the address is not available.
    pub async fn start(addr: impl ToSocketAddrs) -> Result<Self, BrokerError> {
        Self::builder().start(addr).await
    }

    /// Returns a builder for a broker with other settings.
    #[must_use]
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    pub(crate) async fn start_with_settings(
        settings: Settings,
        addr: impl ToSocketAddrs,
    ) -> Result<Self, BrokerError> {
        #[cfg(feature = "tls")]
        let tls = match settings.tls.clone() {
            None => None,
            Some(tls) => {
                let port = tls.port;
                let reason = |reason| BrokerError::Tls { reason };
                let config = tls::server_config(tls).await.map_err(reason)?;
                Some((port, TlsAcceptor::new(config)))
            }
        };
        let listen = |source| BrokerError::Listen { source };
        let (listeners, addrs) = listeners::bind(addr).await.map_err(listen)?;
        #[cfg(feature = "management")]
        let (management, management_addrs) = match settings.management_port {
            None => Default::default(),
            Some(port) => listeners::bind(&same_hosts(&addrs, port)[..])
                .await
                .map_err(|source| BrokerError::ListenManagement { port, source })?,
        };
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "TLS adds its own"))]
        let mut acceptors: Vec<Acceptor> = listeners.into_iter().map(Acceptor::plain).collect();
        #[cfg(feature = "tls")]
        let tls_addr = match tls {
            None => None,
            Some((port, tls)) => {
                let (listeners, addrs) = listeners::bind(&same_hosts(&addrs, port)[..])
                    .await
                    .map_err(|source| BrokerError::ListenTls { port, source })?;
                let over_tls = |listener| Acceptor::tls(listener, tls.clone());
                acceptors.extend(listeners.into_iter().map(over_tls));
                addrs.first().copied()
            }
        };
        let (broker, vhosts) = BrokerState::new(settings);
        let broker = Arc::new(broker);
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(timers::run_all(vhosts, stop.clone()));
        #[cfg(feature = "management")]
        for listener in management {
            let (broker, stop) = (broker.clone(), stop.clone());
            tasks.spawn(crate::management::run(listener, broker, stop));
        }
        for acceptor in acceptors {
            tasks.spawn(accept(acceptor, broker.clone(), stop.clone()));
        }
        tracing::info!(?addrs, "embedded AMQP broker started: {}", PURPOSE);
        let broker = Self {
            broker,
            addrs,
            #[cfg(feature = "management")]
            management_addr: management_addrs.first().copied(),
            #[cfg(feature = "tls")]
            tls_addr,
            tasks,
            stopping,
        };
        Ok(broker)
    }

    /// Returns the URI for clients, including credentials: `amqp://guest:guest@127.0.0.1:41231`.
    ///
    /// It contains the first user and, unless it is `/`, the first virtual host. The host is the
    /// first address; for a broker that listens on all interfaces, the loopback address.
    #[must_use]
    pub fn uri(&self) -> String {
        self.amqp_uri("amqp", self.addr())
    }

    /// Returns the URI for clients over TLS: `amqps://guest:guest@127.0.0.1:39114`. `None` unless
    /// [TLS](BrokerBuilder::tls) was configured.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_uri(&self) -> Option<String> {
        Some(self.amqp_uri("amqps", self.tls_addr?))
    }

    /// Returns the address for clients over TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    fn amqp_uri(&self, scheme: &str, addr: SocketAddr) -> String {
        let authority = self.authority(addr);
        let vhosts = self.broker.settings.vhosts();
        let path = match vhosts.first().copied() {
            None | Some("/") => String::new(),
            Some(vhost) => format!("/{}", utf8_percent_encode(vhost, URI_UNRESERVED)),
        };
        format!("{scheme}://{authority}{path}")
    }

    /// Returns the URI of the management API, including credentials:
    /// `http://guest:guest@127.0.0.1:41232`. `None` unless a [port](BrokerBuilder::management_port)
    /// was configured.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_uri(&self) -> Option<String> {
        let addr = self.management_addr?;
        Some(format!("http://{}", self.authority(addr)))
    }

    /// Returns the address of the management API.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_addr(&self) -> Option<SocketAddr> {
        self.management_addr
    }

    /// Adds a virtual host, available to clients at once. Returns `false` if one with this name
    /// exists.
    pub fn add_vhost(&self, name: &str) -> bool {
        self.broker.add_vhost(name)
    }

    /// Deletes a virtual host and everything in it. Returns `false` if it does not exist. As in
    /// RabbitMQ, its consumers are cancelled and its connections closed with 320 CONNECTION_FORCED.
    /// Does not wait for the connections to end.
    pub fn delete_vhost(&self, name: &str) -> bool {
        self.broker.delete_vhost(name)
    }

    /// Formats the URI authority: the first user, the password and the address, with the loopback
    /// address in place of the unspecified one.
    fn authority(&self, mut addr: SocketAddr) -> String {
        if addr.ip().is_unspecified() {
            addr.set_ip(match addr {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let encode = |text| utf8_percent_encode(text, URI_UNRESERVED);
        let users = self.broker.settings.users();
        let (user, password) = users.first().copied().unwrap_or_default();
        format!("{}:{}@{addr}", encode(user), encode(password))
    }

    /// Returns the first AMQP listen address, an IPv4 one if there is one.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Returns all AMQP listen addresses. They have the same port if the port was 0.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Returns the current statistics of connections, channels and queues.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let mut stats = BrokerStats {
            connections: self.broker.send_buffers().len(),
            ..BrokerStats::default()
        };
        for (name, vhost) in self.broker.vhosts() {
            let state = vhost.lock();
            stats.channels += state.channels.len();
            for queue in state.queues.values() {
                let counts = QueueStats {
                    messages: queue.len(),
                    unacked: 0,
                    consumers: queue.consumers.len(),
                };
                stats
                    .queues
                    .insert((name.clone(), queue.name.to_string()), counts);
            }
            for unacked in state
                .channels
                .values()
                .flat_map(|channel| channel.unsettled())
            {
                let queue = state.queues.get(&unacked.queue);
                let counts = queue.and_then(|queue| {
                    stats
                        .queues
                        .get_mut(&(name.clone(), queue.name.to_string()))
                });
                if let Some(counts) = counts {
                    counts.unacked += 1;
                }
            }
        }
        stats
    }

    /// Closes all client connections with 320 CONNECTION_FORCED and waits until they have ended.
    /// The broker keeps running: clients may reconnect and find all non-exclusive queues unchanged.
    pub async fn close_connections(&self) {
        let closing = self.broker.send_buffers();
        for send_buffer in &closing {
            send_buffer.force_close("closed by the operator");
        }
        loop {
            let ended = self.broker.connection_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let open = self.broker.send_buffers();
            if !closing.iter().any(|send_buffer| {
                open.iter()
                    .any(|other| other.connection == send_buffer.connection)
            }) {
                return;
            }
            ended.await;
        }
    }

    /// Stops the broker. It stops accepting, closes all connections with 320 CONNECTION_FORCED and
    /// returns once every task has ended, after at most three seconds.
    pub async fn stop(mut self) {
        // The receivers live in the tasks; without any, there is nothing to stop.
        let _ = self.stopping.send(true);
        let ended = timeout(STOP_TIMEOUT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            self.tasks.shutdown().await;
        }
        tracing::info!(addrs = ?self.addrs, "embedded AMQP broker stopped");
    }
}

/// Returns the hosts of `addrs` with another port.
#[cfg(any(feature = "management", feature = "tls"))]
fn same_hosts(addrs: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    (addrs.iter())
        .map(|addr| SocketAddr::new(addr.ip(), port))
        .collect()
}

/// Accepts clients until the broker stops, then closes their connections and waits for them.
async fn accept(acceptor: Acceptor, broker: Arc<BrokerState>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                Ok(client) => {
                    connections.spawn(client.serve(broker.clone(), stop.clone()));
                }
                Err(error) => {
                    // For example, out of file descriptors, until other connections close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(acceptor);
    for send_buffer in broker.send_buffers() {
        send_buffer.force_close(SHUTDOWN_REASON);
    }
    while connections.join_next().await.is_some() {}
}
