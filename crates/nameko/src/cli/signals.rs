//! The signals that end a program.

use std::io;

/// Ctrl-C and, on Unix, SIGTERM. From its making on, they no longer end the process by themselves.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Received {
    Interrupt,
    Terminate,
    /// No signal: the process that started this one has let go of it.
    #[cfg(unix)]
    Parent,
}

impl Received {
    /// The exit code of a process that the signal ended: 128 and the signal's number. `None` when it is no signal.
    pub(super) fn exit_code(self) -> Option<u8> {
        match self {
            Self::Interrupt => Some(130),
            Self::Terminate => Some(143),
            #[cfg(unix)]
            Self::Parent => None,
        }
    }
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.terminate.recv() => Received::Terminate,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Received {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Received::Interrupt,
            // Without a handler, the system itself ends the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Ctrl-C alone. From its making on it no longer ends the process by itself.
pub(super) struct Interrupts {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Interrupts {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            signal: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one; returns at once if one came since the last time.
    pub(super) async fn next(&mut self) {
        self.signal.recv().await;
    }

    /// Forgets what came up to now.
    pub(super) fn forget(&mut self) {
        use futures_util::FutureExt as _;
        while self.signal.recv().now_or_never().is_some() {}
    }
}

#[cfg(not(unix))]
impl Interrupts {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// Nothing is remembered here.
    pub(super) fn forget(&mut self) {}
}
