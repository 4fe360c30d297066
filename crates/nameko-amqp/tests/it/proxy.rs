//! A TCP proxy that cuts, freezes and refuses connections.

use std::{net::SocketAddr, sync::Arc};

use nameko_amqp::ConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A TCP proxy for a broker.
pub(crate) struct Proxy {
    addr: SocketAddr,
    upstream: SocketAddr,
    frozen: Arc<watch::Sender<bool>>,
    /// The accepting task. Dropping it closes the listener and all connections.
    tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy for the broker at `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let mut proxy = Self {
            addr: "127.0.0.1:0".parse().unwrap(),
            upstream,
            frozen: Arc::new(watch::Sender::new(false)),
            tasks: JoinSet::new(),
        };
        proxy.resume().await;
        proxy
    }

    /// Returns the address of the proxy.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns `options` with the address of the proxy.
    pub(crate) fn options(&self, options: &ConnectOptions) -> ConnectOptions {
        let mut options = options.clone();
        options.uris.truncate(1);
        options.uris[0].host = self.addr().ip().to_string();
        options.uris[0].port = self.addr().port();
        options
    }

    /// Closes all connections and refuses new ones.
    pub(crate) async fn refuse(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Accepts connections again, on the same port.
    pub(crate) async fn resume(&mut self) {
        self.frozen.send_replace(false);
        let listener = TcpListener::bind(self.addr).await.unwrap();
        self.addr = listener.local_addr().unwrap();
        let (upstream, frozen) = (self.upstream, Arc::clone(&self.frozen));
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let frozen = frozen.subscribe();
                connections.spawn(forward(client, upstream, frozen));
            }
        });
    }

    /// Closes all connections and accepts new ones.
    pub(crate) async fn cut(&mut self) {
        self.refuse().await;
        self.resume().await;
    }

    /// Stops forwarding and leaves all connections open.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn forward(client: TcpStream, upstream: SocketAddr, frozen: watch::Receiver<bool>) {
    let Ok(broker) = TcpStream::connect(upstream).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    tokio::select! {
        () = copy(&mut from_client, &mut to_broker, frozen.clone()) => {}
        () = copy(&mut from_broker, &mut to_client, frozen) => {}
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if frozen.wait_for(|frozen| !frozen).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
