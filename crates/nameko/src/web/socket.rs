//! A TCP connection with timeouts for slow peers.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

use super::settings::Limits;

/// The phase of a connection, which selects its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Before the first byte.
    New,
    /// Between requests.
    Idle,
    /// Receiving a request head.
    Head,
    /// A handler processes the request, with its own timeout.
    Busy,
    /// The handler has returned; the response is being sent.
    Answered,
}

const PHASES: [Phase; 5] = [
    Phase::New,
    Phase::Idle,
    Phase::Head,
    Phase::Busy,
    Phase::Answered,
];

/// State of a connection, shared by its I/O, its server task and streamed bodies.
pub(super) struct Wire {
    /// The other half is in [`Socket`].
    half: OwnedWriteHalf,
    phase: AtomicU8,
    /// Set when the peer exceeded the header timeout.
    late: AtomicBool,
    /// Whether part of the request is unread: a response now closes the connection.
    unread: AtomicBool,
    /// Whether the next response closes the connection.
    last: AtomicBool,
    /// Time of the accept.
    accepted: Instant,
    /// Set while a failed body waits until all bytes before it are written.
    flush_awaited: AtomicBool,
    flushed: AtomicWaker,
    /// Permit of the connection limit.
    _permit: OwnedSemaphorePermit,
}

impl Wire {
    fn new(half: OwnedWriteHalf, permit: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self {
            half,
            phase: AtomicU8::new(Phase::New as u8),
            late: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            last: AtomicBool::new(false),
            accepted: Instant::now(),
            flush_awaited: AtomicBool::new(false),
            flushed: AtomicWaker::new(),
            _permit: permit,
        })
    }

    fn stream(&self) -> &TcpStream {
        self.half.as_ref()
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

    /// Returns `true` if a response now must close the connection.
    pub(super) fn is_last(&self) -> bool {
        self.is_unread() || self.last.load(Ordering::Relaxed)
    }

    /// Makes the next response close the connection.
    pub(super) fn close_after_response(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// Returns the time of the accept.
    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// Makes [`poll_flushed`](Self::poll_flushed) wait for the next flush.
    pub(super) fn expect_flush(&self) {
        self.flush_awaited.store(true, Ordering::Relaxed);
    }

    /// Waits until all bytes so far are written.
    pub(super) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.flushed.register(cx.waker());
        match self.flush_awaited.load(Ordering::Relaxed) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Waits until the peer has shut down its sending side. Polled by the task of the connection
    /// only: a socket keeps one waker.
    pub(super) async fn gone(&self) {
        poll_fn(|cx| match self.poll_gone(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Returns `true` if the peer has shut down its sending side.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.stream().poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => true,
            Poll::Ready(Ok(_)) | Poll::Pending => false,
        }
    }

    /// Writes as much as possible without blocking.
    pub(super) fn write_now(&self, bytes: &[u8]) {
        // The connection is about to close, so a full send buffer is ignored.
        let _ = self.stream().try_write(bytes);
    }

    /// Shuts down the sending side, then drains incoming bytes for up to `limit`. Closing with
    /// unread bytes would reset the connection, which may discard the response.
    pub(super) async fn linger(&self, limit: Duration) {
        if self.shutdown().is_err() {
            return;
        }
        let drain = async {
            let mut scrap = [0; 4096];
            while self.stream().readable().await.is_ok() {
                match self.stream().try_read(&mut scrap) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        // A peer that keeps sending is disconnected.
        let _ = tokio::time::timeout(limit, drain).await;
    }

    fn shutdown(&self) -> io::Result<()> {
        match socket2::SockRef::from(self.stream()).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

/// The I/O half of a [`Wire`].
pub(super) struct Socket {
    wire: Arc<Wire>,
    half: OwnedReadHalf,
    limits: Limits,
    reading: Alarm,
    writing: Alarm,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, limits: Limits, permit: OwnedSemaphorePermit) -> Self {
        let (reading, writing) = stream.into_split();
        Self {
            wire: Wire::new(writing, permit),
            half: reading,
            limits,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Handles received bytes.
    fn arrived(&mut self) {
        if matches!(
            self.wire.phase(),
            Phase::New | Phase::Idle | Phase::Answered
        ) {
            self.wire.set_phase(Phase::Head);
            self.reading.clear();
        }
    }

    /// Waits for bytes with the timeout of the phase.
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
            if self.wire.stream().poll_write_ready(cx)?.is_pending() {
                return match self.writing.poll(cx, self.limits.send_timeout) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                };
            }
            match write(self.wire.stream()) {
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
        let before = buf.filled().len();
        // After a short read it waits for the next event, without a read in vain.
        let read = Pin::new(&mut self.half).poll_read(cx, buf);
        if read.is_pending() {
            return self.wait(cx);
        }
        if buf.filled().len() > before {
            self.arrived();
        }
        read
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
        if self.wire.flush_awaited.load(Ordering::Relaxed) {
            self.wire.flush_awaited.store(false, Ordering::Relaxed);
            self.wire.flushed.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.wire.shutdown())
    }
}

/// A deadline that is cheap to move: its timer is only reset if it fires too early or would fire
/// too late.
#[derive(Default)]
struct Alarm {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `limit` has passed since the first call after [`clear`](Self::clear).
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let now = Instant::now();
        // Caps limits that would overflow.
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
