//! A TCP connection that gives up on a peer that is too slow.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

use super::settings::Limits;

/// What a connection is at, which says how long it may take. One request after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing came yet.
    New,
    /// Between requests.
    Idle,
    /// Some of a request's head came.
    Head,
    /// A handler has the request: it sees to its own time.
    Busy,
    /// The handler has answered.
    Answered,
}

const PHASES: [Phase; 5] = [
    Phase::New,
    Phase::Idle,
    Phase::Head,
    Phase::Busy,
    Phase::Answered,
];

/// The connection itself, shared by who reads and writes it, who serves it, and bodies that are streamed to it.
pub(super) struct Wire {
    stream: TcpStream,
    phase: AtomicU8,
    /// Set when the peer was too slow with the head of a request.
    late: AtomicBool,
    /// Whether some of the request was not read: an answer given now is the connection's last.
    unread: AtomicBool,
    /// The connection's place among those that may be open.
    _permit: OwnedSemaphorePermit,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self {
            stream,
            phase: AtomicU8::new(Phase::New as u8),
            late: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            _permit: permit,
        })
    }

    pub(super) fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        PHASES.get(phase).copied().unwrap_or(Phase::Busy)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed its side and sends no more.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => true,
            Poll::Ready(Ok(_)) | Poll::Pending => false,
        }
    }

    /// Writes what fits at once.
    pub(super) fn write_now(&self, bytes: &[u8]) {
        // The connection is about to be closed: a peer that takes nothing gets nothing.
        let _ = self.stream.try_write(bytes);
    }

    /// Says that no more comes, then reads what the peer still sends, for `limit` at most. Without this, the system
    /// answers the unread bytes with a reset, which may overtake the answer.
    pub(super) async fn linger(&self, limit: Duration) {
        if self.shutdown().is_err() {
            return;
        }
        let drain = async {
            let mut scrap = [0; 4096];
            while self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut scrap) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        // A peer that goes on sending is cut off.
        let _ = tokio::time::timeout(limit, drain).await;
    }

    fn shutdown(&self) -> io::Result<()> {
        match socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

/// The end of a [`Wire`] that is read and written.
pub(super) struct Socket {
    wire: Arc<Wire>,
    limits: Limits,
    reading: Alarm,
    writing: Alarm,
}

impl Socket {
    pub(super) fn new(wire: Arc<Wire>, limits: Limits) -> Self {
        Self {
            wire,
            limits,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    /// Bytes came.
    fn arrived(&mut self) {
        if matches!(
            self.wire.phase(),
            Phase::New | Phase::Idle | Phase::Answered
        ) {
            self.wire.set_phase(Phase::Head);
            self.reading.clear();
        }
    }

    /// No bytes came: how long does it wait for them?
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limit = match self.wire.phase() {
            Phase::New | Phase::Head => self.limits.header_timeout,
            Phase::Idle => self.limits.keep_alive,
            Phase::Answered => {
                self.wire.set_phase(Phase::Idle);
                self.reading.clear();
                self.limits.keep_alive
            }
            Phase::Busy => return Poll::Pending,
        };
        if self.reading.poll(cx, limit).is_pending() {
            return Poll::Pending;
        }
        if self.wire.phase() == Phase::Head {
            self.wire.late.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.wire.stream.poll_write_ready(cx)?.is_pending() {
                return match self.writing.poll(cx, self.limits.send_timeout) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                };
            }
            match write(&self.wire.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.writing.clear();
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.wire.stream.poll_read_ready(cx)?.is_pending() {
                return self.wait(cx);
            }
            match self.wire.stream.try_read_buf(buf) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    self.arrived();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.wire.shutdown())
    }
}

/// A deadline that is cheap to move: its timer is set again only when it goes off too early or would go off too late.
#[derive(Default)]
struct Alarm {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready when `limit` has passed since the first call after [`clear`](Self::clear).
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let now = Instant::now();
        // A limit of centuries is none.
        let far = now + Duration::from_secs(86_400 * 365);
        let deadline = *self
            .deadline
            .get_or_insert_with(|| now.checked_add(limit).unwrap_or(far).min(far));
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn clear(&mut self) {
        self.deadline = None;
    }
}
