//! The broker: listens, serves, and is stopped.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    net::{TcpListener, ToSocketAddrs},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    broker_state::BrokerState,
    settings::{BrokerBuilder, PURPOSE, Settings},
    sync::stopped,
    timers, transport,
};

/// How long connections have to end when the broker stops, before their tasks are aborted.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Characters that stand for themselves in a URI's user, password and vhost.
const URI_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A running AMQP 0-9-1 broker, in memory.
///
/// Everything in it is gone when it is [stopped](Broker::stop) or dropped. See the [crate documentation](crate) for what it
/// is for.
#[derive(Debug)]
pub struct Broker {
    broker: Arc<BrokerState>,
    addr: SocketAddr,
    #[cfg(feature = "management")]
    management_addr: Option<SocketAddr>,
    /// The accepting task, which owns those of the connections, the management API, and the timers of the virtual hosts. Dropping it aborts them.
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

/// Why a broker can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address can't be listened on: it is in use, not this machine's, not allowed, or no address at all.
    #[error("the broker can't listen on the given address; is another one running there?")]
    Listen {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The port of the management API can't be listened on.
    #[cfg(feature = "management")]
    #[error(
        "the broker's management API can't listen on port {port}; is another one running there? (0 is any free port)"
    )]
    ListenManagement {
        /// The port asked for.
        port: u16,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Counts of what is in a broker, for tests and displays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Open connections, those in the handshake included.
    pub connections: usize,
    /// Open channels of all connections.
    pub channels: usize,
    /// Queues by virtual host and name.
    pub queues: BTreeMap<(String, String), QueueStats>,
}

/// Counts of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages ready to be delivered.
    pub messages: usize,
    /// Messages delivered and not yet acknowledged.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
}

impl BrokerBuilder {
    /// Starts a broker that listens on `addr`; port 0 takes a free one. Runs on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the address, or the management API's port, can't be listened on.
    pub async fn start(self, addr: impl ToSocketAddrs) -> Result<Broker, BrokerError> {
        Broker::start_with_settings(self.settings, addr).await
    }
}

impl Broker {
    /// Starts a broker with the default settings (guest/guest, virtual host `/`) that listens on `addr`, such as
    /// `"127.0.0.1:0"`, where port 0 takes a free one. Runs on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Listen`] when the address can't be listened on.
    pub async fn start(addr: impl ToSocketAddrs) -> Result<Self, BrokerError> {
        Self::builder().start(addr).await
    }

    /// Settings to change before the start.
    #[must_use]
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    pub(crate) async fn start_with_settings(
        settings: Settings,
        addr: impl ToSocketAddrs,
    ) -> Result<Self, BrokerError> {
        let listen = |source| BrokerError::Listen { source };
        // On Unix this sets SO_REUSEADDR, so a port can be used again right after a broker on it stopped.
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        #[cfg(feature = "management")]
        let management = match settings.management_port {
            None => None,
            Some(port) => Some(
                TcpListener::bind((addr.ip(), port))
                    .await
                    .map_err(|source| BrokerError::ListenManagement { port, source })?,
            ),
        };
        let (broker, vhosts) = BrokerState::new(settings);
        let broker = Arc::new(broker);
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(timers::run_all(vhosts, stop.clone()));
        #[cfg(feature = "management")]
        let management_addr = match management {
            None => None,
            Some(listener) => {
                let addr = listener.local_addr().map_err(listen)?;
                tasks.spawn(crate::management::run(
                    listener,
                    broker.clone(),
                    stop.clone(),
                ));
                Some(addr)
            }
        };
        tasks.spawn(accept(listener, broker.clone(), stop));
        let broker = Self {
            broker,
            addr,
            #[cfg(feature = "management")]
            management_addr,
            tasks,
            stopping,
        };
        tracing::info!(%addr, "embedded AMQP broker started: {}", PURPOSE);
        Ok(broker)
    }

    /// Where clients connect, with user and password: `amqp://guest:guest@127.0.0.1:41231`.
    ///
    /// It names the first user and, unless that is `/`, the first virtual host. A broker that listens on all addresses
    /// names the local one.
    #[must_use]
    pub fn uri(&self) -> String {
        let authority = self.authority(self.addr);
        let vhosts = self.broker.settings.vhosts();
        let path = match vhosts.first().copied() {
            None | Some("/") => String::new(),
            Some(vhost) => format!("/{}", utf8_percent_encode(vhost, URI_UNRESERVED)),
        };
        format!("amqp://{authority}{path}")
    }

    /// Where the management API is, with user and password: `http://guest:guest@127.0.0.1:41232`. `None` unless a
    /// [port](BrokerBuilder::management_port) was given for it.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_uri(&self) -> Option<String> {
        let addr = self.management_addr?;
        Some(format!("http://{}", self.authority(addr)))
    }

    /// The address the management API listens on.
    #[cfg(feature = "management")]
    #[must_use]
    pub fn management_addr(&self) -> Option<SocketAddr> {
        self.management_addr
    }

    /// Adds a virtual host, which clients may connect to at once. False when there is one of that name already.
    pub fn add_vhost(&self, name: &str) -> bool {
        self.broker.add_vhost(name)
    }

    /// Deletes a virtual host with all that is in it; false when there is none of that name. As by RabbitMQ its consumers are
    /// cancelled, and its connections closed with 320 CONNECTION_FORCED: they are told, and not waited for.
    pub fn delete_vhost(&self, name: &str) -> bool {
        self.broker.delete_vhost(name)
    }

    /// The first user, the password and an address, as in a URI. For one that listens on all addresses, the local one.
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

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Counts of connections, channels and queues as they are now.
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
                .flat_map(|channel| channel.unacked.values())
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

    /// Closes all client connections with 320 CONNECTION_FORCED and waits until they are gone. The broker goes on: clients
    /// may connect again, and find durable and other queues that are not exclusive as they were.
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

    /// Stops: nothing is accepted any more, connections are closed with 320 CONNECTION_FORCED, and every task has ended
    /// when this returns, after three seconds at most.
    pub async fn stop(mut self) {
        // Receivers live in the tasks; with none left there is nothing to stop.
        let _ = self.stopping.send(true);
        let ended = timeout(STOP_TIMEOUT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            self.tasks.shutdown().await;
        }
        tracing::info!(addr = %self.addr, "embedded AMQP broker stopped");
    }
}

/// Accepts clients until the broker stops, then has their connections closed and waits for them.
async fn accept(listener: TcpListener, broker: Arc<BrokerState>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tracing::debug!(%peer, "client connected");
                    let addrs = stream.local_addr().map(|local| (peer, local)).ok();
                    connections.spawn(transport::serve(stream, broker.register(addrs)));
                }
                Err(error) => {
                    // Out of file descriptors, say: those of connections that end make it work again.
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    for send_buffer in broker.send_buffers() {
        send_buffer.force_close("broker forced connection closure with reason 'shutdown'");
    }
    while connections.join_next().await.is_some() {}
}
