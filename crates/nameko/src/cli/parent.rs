//! The link of a `run --workers` process to its supervisor.
//!
//! The link is a socket, passed as standard input. The process writes a byte once its services are
//! ready. The supervisor writes a byte to stop the process, and closes the socket. End of file
//! without that byte means that the supervisor died; the process then stops by itself.

use std::future::pending;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt as _;

use super::failure::Failure;
use super::signals::Received;

/// The message on the link, in both directions.
pub(super) const SIGNAL_BYTE: u8 = b'.';

/// The receiving half of the link.
pub(super) struct Parent(UnixStream);

/// The receiving half of the link, on a runtime.
pub(super) struct ConnectedParent {
    link: tokio::net::UnixStream,
    /// Set after the stop request or the end of file.
    gone: bool,
}

/// The sending half of the link.
pub(super) struct ReadyNotifier(UnixStream);

/// Opens the link on standard input.
pub(super) fn link() -> Result<(Parent, ReadyNotifier), Failure> {
    let sockets = || {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = UnixStream::from(input);
        // Fails if standard input is not a socket, before changing its mode.
        socket.local_addr()?;
        socket.set_nonblocking(true)?;
        Ok((socket.try_clone()?, socket))
    };
    let (reader, writer) = sockets().map_err(|error: io::Error| {
        Failure::new(
            "Error",
            format!("standard input is not the socket of `run --workers`: {error}"),
        )
    })?;
    Ok((Parent(reader), ReadyNotifier(writer)))
}

impl Parent {
    /// Registers the link with the current runtime.
    pub(super) fn connect(self) -> io::Result<ConnectedParent> {
        Ok(ConnectedParent {
            link: tokio::net::UnixStream::from_std(self.0)?,
            gone: false,
        })
    }
}

impl ConnectedParent {
    /// Completes when the supervisor requests a stop, or dies. Later calls never complete.
    pub(super) async fn stop_requested(&mut self) -> Received {
        if self.gone {
            return pending().await;
        }
        let read = self.link.read(&mut [0]).await;
        self.gone = true;
        if !matches!(read, Ok(1)) {
            tracing::warn!(target: "nameko::run", "the supervisor process died: stopping");
        }
        Received::Parent
    }
}

impl ReadyNotifier {
    /// Reports that the services of this process are ready.
    pub(super) fn notify(&self) {
        // Fails if the supervisor died, which `Parent` detects.
        let _ = (&self.0).write(&[SIGNAL_BYTE]);
    }
}
