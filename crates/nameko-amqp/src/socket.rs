//! The socket of a connection, which can move to the event queue of another runtime.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::sync::lock;

/// A handle of a shared socket. Reads and writes come from one task, so its lock is uncontended.
#[derive(Clone, Debug)]
pub(crate) struct Socket(Arc<Mutex<TcpStream>>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Registers the socket with the event queue of the current runtime, in place of its own.
    ///
    /// # Errors
    ///
    /// If the system is out of file descriptors. The socket stays where it is then.
    #[cfg(unix)]
    pub(crate) fn register_here(&self) -> io::Result<()> {
        use std::os::fd::AsFd;

        let mut stream = lock(&self.0);
        let duplicate: std::net::TcpStream = stream.as_fd().try_clone_to_owned()?.into();
        *stream = TcpStream::from_std(duplicate)?;
        Ok(())
    }

    #[cfg(not(unix))]
    pub(crate) fn register_here(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(context)
    }
}
