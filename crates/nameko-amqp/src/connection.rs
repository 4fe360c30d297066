//! A connection: open it, make channels, hear of its end.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    channel::Channel,
    connection_state::ConnectionState,
    driver,
    error::Error,
    handshake::{self, Agreed},
    options::ConnectOptions,
    peer::Peer,
    tls,
    uri::Uri,
};

/// More than the second that the driver gives a polite close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A connection to a broker. Clones are the same connection; it is closed when the last one, and the last of its
/// channels, is dropped.
///
/// It is run by a task on the runtime it was opened on. Whatever ends it, everything that waits on it resolves with the
/// reason.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<ConnectionState>);

impl Drop for Handle {
    fn drop(&mut self) {
        // The driver outlives this by a second at most.
        self.0.close();
    }
}

impl Connection {
    /// Connects: tries each URI once, in order, each for at most `connect_timeout`.
    ///
    /// # Errors
    ///
    /// What the last attempt met with.
    pub async fn open(options: &ConnectOptions) -> Result<Self, Error> {
        let mut failed = Error::BadUri {
            uri: String::new(),
            reason: "no broker is given".to_owned(),
        };
        for uri in &options.uris {
            match open_one(uri, options).await {
                Ok(connection) => return Ok(connection),
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
    /// The connection is gone, or has as many channels as the broker allows.
    pub async fn channel(&self) -> Result<Channel, Error> {
        Channel::open(self.clone(), &self.0.0).await
    }

    /// Closes politely: what was sent is written first, and the broker answers. Takes about a second at most.
    pub async fn close(&self) {
        self.0.0.close();
        if timeout(CLOSE_TIMEOUT, self.closed()).await.is_err() {
            self.abort();
        }
    }

    /// Drops the connection at once. The broker puts back what was not acknowledged.
    pub fn abort(&self) {
        self.0.0.abort();
    }

    /// Whether it can be used.
    pub fn is_open(&self) -> bool {
        self.0.0.is_open()
    }

    /// Resolves when the connection ends, for whatever reason, with that reason.
    pub async fn closed(&self) -> Error {
        self.0.0.ended().await
    }

    /// What tells this connection from others, also when it is gone.
    pub(crate) fn identity(&self) -> Weak<ConnectionState> {
        Arc::downgrade(&self.0.0)
    }

    /// Whom it is to.
    pub fn peer(&self) -> &Peer {
        &self.0.0.peer
    }
}

async fn open_one(uri: &Uri, options: &ConnectOptions) -> Result<Connection, Error> {
    let peer = Peer::from(uri);
    let mut doing = "connecting";
    let attempt = attempt(uri, options, &peer, &mut doing);
    match timeout(options.connect_timeout, attempt).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::Timeout {
            peer,
            after: options.connect_timeout,
            doing,
        }),
    }
}

async fn attempt(
    uri: &Uri,
    options: &ConnectOptions,
    peer: &Peer,
    doing: &mut &'static str,
) -> Result<Connection, Error> {
    let stream = TcpStream::connect((uri.host.as_str(), uri.port))
        .await
        .map_err(|source| Error::Io {
            peer: peer.clone(),
            source: Arc::new(source),
        })?;
    // Frames are gathered here; waiting for more would only delay them. Without it everything still works.
    let _ = stream.set_nodelay(true);
    let tls = match &options.tls {
        Some(tls) => Some(tls.clone()),
        None => uri.tls.then(Default::default),
    };
    match tls {
        None => {
            // Without a second handle everything still works.
            let socket = second_handle(&stream);
            let (mut reader, mut writer) = stream.into_split();
            *doing = "waiting for the AMQP handshake";
            let agreed = handshake::negotiate(&mut reader, &mut writer, uri, options, peer).await?;
            Ok(start(peer, agreed, socket, reader, writer))
        }
        Some(tls) => {
            *doing = "waiting for the TLS handshake";
            let anonymous = tls.certfile.is_none();
            let stream = tls::connect(stream, tls, uri, peer).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            *doing = "waiting for the AMQP handshake";
            let agreed = handshake::negotiate(&mut reader, &mut writer, uri, options, peer)
                .await
                .map_err(|error| {
                    if anonymous {
                        tls::anonymous(error)
                    } else {
                        error
                    }
                })?;
            Ok(start(peer, agreed, None, reader, writer))
        }
    }
}

/// As non-blocking as the first: that is a property of the socket.
#[cfg(unix)]
fn second_handle(stream: &TcpStream) -> Option<std::net::TcpStream> {
    use std::os::fd::AsFd;

    stream.as_fd().try_clone_to_owned().ok().map(Into::into)
}

#[cfg(not(unix))]
fn second_handle(_: &TcpStream) -> Option<std::net::TcpStream> {
    None
}

fn start(
    peer: &Peer,
    agreed: Agreed,
    socket: Option<std::net::TcpStream>,
    reader: impl AsyncRead + Send + 'static,
    writer: impl AsyncWrite + Send + 'static,
) -> Connection {
    let shared = Arc::new(ConnectionState::new(peer.clone(), agreed.limits, socket));
    // The task ends with the connection, which its handles close when they are dropped.
    tokio::spawn(driver::run(
        Arc::clone(&shared),
        agreed.frames,
        reader,
        writer,
    ));
    Connection(Arc::new(Handle(shared)))
}
