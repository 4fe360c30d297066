//! One of the processes of `run --workers`, and its link to the one that started it.
//!
//! The link is a socket, this process's standard input. This one writes a byte when its services can be called. The
//! parent writes a byte when this one shall stop, and closes it. Where it is closed without that byte, the parent is gone, and nobody else
//! would stop this process.

use std::future::pending;
use std::io;
use std::os::fd::AsFd as _;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::client::Failure;
use super::signals::Received;

/// What is written on the link, both ways.
pub(super) const BYTE: u8 = b'.';

/// The process that started this one, as it is heard.
pub(super) struct Parent {
    link: OwnedReadHalf,
    /// Whether it has let go of this process: it says so once.
    gone: bool,
}

/// The same, as it is told.
pub(super) struct Report(OwnedWriteHalf);

/// Takes standard input for the link.
pub(super) fn link() -> Result<(Parent, Report), Failure> {
    let socket = || {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = std::os::unix::net::UnixStream::from(input);
        // Fails where it is none, before anything is done to it.
        socket.local_addr()?;
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    let socket = socket().map_err(|error| {
        Failure::new(
            "Error",
            format!("standard input is not the link that `run --workers` makes: {error}"),
        )
    })?;
    let (link, report) = socket.into_split();
    Ok((Parent { link, gone: false }, Report(report)))
}

impl Parent {
    /// Returns when the parent says that this process shall stop, or is gone. Only once: then it waits for ever.
    pub(super) async fn lets_go(&mut self) -> Received {
        if self.gone {
            return pending().await;
        }
        let said = self.link.read(&mut [0]).await;
        self.gone = true;
        if !matches!(said, Ok(1)) {
            tracing::warn!(target: "nameko::run", "the process that started this one is gone: stopping");
        }
        Received::Parent
    }
}

impl Report {
    /// This process's services can be called.
    pub(super) fn ready(&self) {
        // It fails where the parent is gone, which is noticed elsewhere.
        let _ = self.0.try_write(&[BYTE]);
    }
}
