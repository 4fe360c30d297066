//! Termination signals.

use std::io;

/// Ctrl-C and, on Unix, SIGTERM. Creating it disables their default action.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// A reason to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Received {
    Interrupt,
    Terminate,
    /// The supervisor process requested a stop or died; not a signal.
    #[cfg(unix)]
    Parent,
}

impl Received {
    /// Returns the exit code of a process ended by the signal: 128 plus its number. `None` if it is
    /// not a signal.
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

    /// Waits for the next signal.
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

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Received {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Received::Interrupt,
            // Without a handler, the default action ends the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Ctrl-C alone. Creating it disables the default action.
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

    /// Waits for the next Ctrl-C; returns at once if one arrived since the last call.
    pub(super) async fn next(&mut self) {
        self.signal.recv().await;
    }

    /// Discards pending signals.
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

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// Does nothing: signals are not queued.
    pub(super) fn forget(&mut self) {}
}
