//! A connection to a broker.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

#[cfg(feature = "tls")]
use crate::tls;
use crate::{
    channel::Channel,
    connection_handle::ConnectionHandle,
    connection_state::ConnectionState,
    driver,
    error::Error,
    handshake::{self, Negotiated},
    options::{ConnectOptions, Tls},
    outage,
    peer::Peer,
    rescue,
    socket::Socket,
    uri::Uri,
};

/// Timeout of [`Connection::close`], longer than the driver's timeout of a graceful close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A connection to a broker. Clones share the connection; it is closed with the last clone and the
/// last of its channels.
///
/// A spawned task runs it: on the runtime it was opened on if that has one thread, else on the I/O
/// thread of the process. However it ends, everything that waits
/// on it resolves with the reason.
#[derive(Clone, Debug)]
pub struct Connection(Arc<ConnectionHandle>);

impl Connection {
    /// Connects to the first broker of `options` that accepts: each URI is tried once, in order,
    /// for at most `connect_timeout`.
    ///
    /// # Errors
    ///
    /// If no broker accepts: the error of the last attempt.
    pub async fn open(options: &ConnectOptions) -> Result<Self, Error> {
        let mut failed = Error::BadUri {
            uri: String::new(),
            reason: "no broker is given".to_owned(),
        };
        for uri in &options.uris {
            match open_one(uri, options).await {
                Ok(connection) => {
                    outage::broker_reached(uri);
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Opens a channel.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or has as many channels as the broker allows.
    pub async fn channel(&self) -> Result<Channel, Error> {
        Channel::open(Arc::clone(&self.0)).await
    }

    /// Closes the connection gracefully: flushes, then waits for the broker's answer. Takes at most
    /// 1.5 seconds.
    pub async fn close(&self) {
        self.0.state.close();
        if timeout(CLOSE_TIMEOUT, self.closed()).await.is_err() {
            self.abort();
        }
    }

    /// Drops the connection at once. The broker requeues unacknowledged messages.
    pub fn abort(&self) {
        self.0.state.abort();
    }

    /// Returns whether the connection is neither closing nor closed.
    pub fn is_open(&self) -> bool {
        self.0.state.is_open()
    }

    /// Waits for the end of the connection and returns the error that caused it, [`Error::Closed`]
    /// if this side closed it.
    pub async fn closed(&self) -> Error {
        self.0.state.closed().await
    }

    /// Returns the reason for which the broker accepts no messages (`connection.blocked`), `None`
    /// while it does.
    pub fn blocked(&self) -> Option<String> {
        self.0.state.blocked()
    }

    /// Returns a value that identifies this connection, also after its end.
    pub(crate) fn identity(&self) -> Weak<ConnectionState> {
        Arc::downgrade(&self.0.state)
    }

    /// Returns the address and user of the connection.
    pub fn peer(&self) -> &Peer {
        &self.0.state.peer
    }
}

async fn open_one(uri: &Uri, options: &ConnectOptions) -> Result<Connection, Error> {
    let peer = Peer::from(uri);
    let mut step = "connecting";
    let attempt = attempt(uri, options, &peer, &mut step);
    match timeout(options.connect_timeout, attempt).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::Timeout {
            peer,
            after: options.connect_timeout,
            doing: step,
        }),
    }
}

/// Connects to one broker. `step` is kept up to date for the error of a timeout.
async fn attempt(
    uri: &Uri,
    options: &ConnectOptions,
    peer: &Peer,
    step: &mut &'static str,
) -> Result<Connection, Error> {
    let tls = match &options.tls {
        Some(tls) => Some(tls.clone()),
        None => uri.tls.then(Tls::default),
    };
    match tls {
        None => {
            let stream = connect_tcp(uri, peer).await?;
            let second = second_handle(&stream);
            let socket = Socket::new(stream);
            let (mut reader, mut writer) = (socket.clone(), socket.clone());
            *step = "waiting for the AMQP handshake";
            let negotiated =
                handshake::negotiate(&mut reader, &mut writer, uri, options, peer).await?;
            Ok(start(peer, negotiated, second, socket, reader, writer))
        }
        #[cfg(feature = "tls")]
        Some(tls) => {
            let stream = connect_tcp(uri, peer).await?;
            *step = "waiting for the TLS handshake";
            let anonymous = tls.certfile.is_none();
            let socket = Socket::new(stream);
            let stream = tls::connect(socket.clone(), tls, uri, peer).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            *step = "waiting for the AMQP handshake";
            let negotiated = handshake::negotiate(&mut reader, &mut writer, uri, options, peer)
                .await
                .map_err(|error| {
                    if anonymous {
                        tls::explain_missing_certificate(error)
                    } else {
                        error
                    }
                })?;
            Ok(start(peer, negotiated, None, socket, reader, writer))
        }
        #[cfg(not(feature = "tls"))]
        Some(_) => Err(Error::Tls {
            peer: peer.clone(),
            reason: "built without TLS; enable the cargo feature `tls`".to_owned(),
        }),
    }
}

async fn connect_tcp(uri: &Uri, peer: &Peer) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect((uri.host.as_str(), uri.port))
        .await
        .map_err(|source| Error::Io {
            peer: peer.clone(),
            source: Arc::new(source),
        })?;
    // Frames are batched here; Nagle's algorithm would only delay them. Failing to set it is
    // harmless.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Duplicates the socket for writes that bypass the writer. It is non-blocking like the first
/// handle: that is a property of the socket. The connection also works without it.
#[cfg(unix)]
fn second_handle(stream: &TcpStream) -> Option<std::net::TcpStream> {
    use std::os::fd::AsFd;

    stream.as_fd().try_clone_to_owned().ok().map(Into::into)
}

#[cfg(not(unix))]
fn second_handle(_: &TcpStream) -> Option<std::net::TcpStream> {
    None
}

/// Spawns the driver of an open connection.
fn start(
    peer: &Peer,
    negotiated: Negotiated,
    second: Option<std::net::TcpStream>,
    socket: Socket,
    reader: impl AsyncRead + Send + 'static,
    writer: impl AsyncWrite + Send + 'static,
) -> Connection {
    let handle = ConnectionHandle {
        state: ConnectionState::new(peer.clone(), negotiated.limits, second),
        channels: Arc::default(),
    };
    // The task ends with the connection, which the last handle closes.
    let driver = driver::run(
        Arc::clone(&handle.state),
        Arc::clone(&handle.channels),
        negotiated.frames,
        reader,
        writer,
    );
    rescue::spawn(Arc::clone(&handle.state), socket, driver);
    Connection(Arc::new(handle))
}
