//! Termination signals.

use std::{future::Future, io, thread};

use tokio::{runtime::Builder, sync::mpsc};

#[cfg(unix)]
use super::parent::Parent;

/// Ctrl-C and, on Unix, SIGTERM and the link to a supervisor. Creating it disables the default
/// action of the signals.
///
/// They are received on a thread of their own, since methods may block all threads of the runtime.
pub(super) struct Signals(mpsc::UnboundedReceiver<Received>);

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

impl Signals {
    /// Receives signals.
    pub(super) fn new() -> io::Result<Self> {
        Self::receive(|sender| {
            let mut sources = Sources::new()?;
            Ok(async move { while sender.send(sources.next().await).is_ok() {} })
        })
    }

    /// Receives signals, and the stop request or the end of a supervisor.
    #[cfg(unix)]
    pub(super) fn with_parent(parent: Parent) -> io::Result<Self> {
        Self::receive(|sender| {
            let (mut sources, mut parent) = (Sources::new()?, parent.connect()?);
            Ok(async move {
                loop {
                    let received = tokio::select! {
                        signal = sources.next() => signal,
                        stop = parent.stop_requested() => stop,
                    };
                    if sender.send(received).is_err() {
                        return;
                    }
                }
            })
        })
    }

    /// Runs the future of `open` on a thread, which ends with the process, or with the receiver at
    /// the next signal.
    fn receive<F>(
        open: impl FnOnce(mpsc::UnboundedSender<Received>) -> io::Result<F>,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let receiving = {
            let _context = runtime.enter();
            open(sender)?
        };
        thread::Builder::new()
            .name("nameko-signals".to_owned())
            .spawn(move || runtime.block_on(receiving))?;
        Ok(Self(receiver))
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Received {
        match self.0.recv().await {
            Some(received) => received,
            None => std::future::pending().await,
        }
    }
}

/// The signals of the process, on one runtime.
#[cfg(unix)]
struct Sources {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Sources {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.terminate.recv() => Received::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Sources;

#[cfg(not(unix))]
impl Sources {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Received {
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
