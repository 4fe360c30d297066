//! The link of a `run --workers` process to its supervisor.
//!
//! The link is a socket, passed as standard input. The process writes a byte once its services are
//! ready. The supervisor writes a byte to stop the process, and closes the socket. End of file
//! without that byte means that the supervisor died; the process then stops by itself.

use std::future::pending;
use std::io;
use std::os::fd::AsFd as _;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::failure::Failure;
use super::signals::Received;

/// The message on the link, in both directions.
pub(super) const SIGNAL_BYTE: u8 = b'.';

/// The receiving half of the link.
pub(super) struct Parent {
    link: OwnedReadHalf,
    /// Set after the stop request or the end of file.
    gone: bool,
}

/// The sending half of the link.
pub(super) struct ReadyNotifier(OwnedWriteHalf);

/// Opens the link on standard input.
pub(super) fn link() -> Result<(Parent, ReadyNotifier), Failure> {
    let socket = || {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = std::os::unix::net::UnixStream::from(input);
        // Fails if standard input is not a socket, before changing its mode.
        socket.local_addr()?;
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    let socket = socket().map_err(|error| {
        Failure::new(
            "Error",
            format!("standard input is not the socket of `run --workers`: {error}"),
        )
    })?;
    let (reader, writer) = socket.into_split();
    let parent = Parent {
        link: reader,
        gone: false,
    };
    Ok((parent, ReadyNotifier(writer)))
}

impl Parent {
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
        let _ = self.0.try_write(&[SIGNAL_BYTE]);
    }
}
