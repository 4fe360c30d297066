//! State of a connection, shared by its task and its handles.
//!
//! Locks are taken in this order and never held across an `.await`: a channel's state, the output.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use amq_protocol::protocol::{AMQPClass, connection};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use crate::{encode, error::Error, io_thread, peer::Peer, sync::lock};

/// Unsent bytes above which publishing waits. Acknowledgements never wait.
const WRITE_HIGH_WATER_BYTES: usize = 1024 * 1024;

/// Capacity that a buffer keeps after a large message.
const MAX_IDLE_BUFFER_BYTES: usize = 256 * 1024;

/// State of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    this: Weak<Self>,
    /// The runtime that opened the connection. Sinks and callbacks are called in its context.
    pub(crate) home: Handle,
    pub(crate) peer: Peer,
    pub(crate) limits: Limits,
    output: Mutex<Output>,
    /// Wakes the writer.
    output_ready: Notify,
    /// Wakes publishers that wait for the output to fall below the high-water mark.
    drained: Notify,
    /// Ends the connection at once.
    abort: Notify,
    /// Starts the timeout of a graceful close.
    close_requested: Notify,
    /// Error that ended the connection; set once.
    closed: watch::Sender<Option<Error>>,
    /// Number of reads, from which the heartbeat loop detects a silent peer.
    pub(crate) reads: AtomicU32,
    /// Number of writes that made progress.
    pub(crate) writes: AtomicU32,
    /// Reason of `connection.blocked`, while the broker accepts no publishes.
    blocked: Mutex<Option<String>>,
}

/// Limits negotiated in the handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Largest frame, in bytes.
    pub(crate) frame_max: usize,
    /// Highest channel number.
    pub(crate) channel_max: u16,
    /// Heartbeat interval, zero for none.
    pub(crate) heartbeat: Duration,
}

#[derive(Debug)]
struct Output {
    /// Encoded frames.
    buffer: Vec<u8>,
    /// Number of bytes taken by the writer and not written yet.
    in_flight: usize,
    /// Whether the writer was notified of the bytes in `buffer`, or the I/O thread is going to
    /// write them.
    writer_notified: bool,
    /// Second handle of the socket, for writes that bypass the writer. None over TLS.
    socket: Option<TcpStream>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// `connection.close` is sent and not answered; no frame may follow it.
    Closing,
    /// The final frame is in the buffer; once it is written, the writer ends the connection with
    /// this error.
    FinalFrame(Error),
    Closed,
    /// Aborted for a reason of its own.
    Failed(Error),
}

/// Next step of the writer.
pub(crate) enum NextWrite {
    /// Wait for a notification.
    Wait,
    /// Write the bytes.
    Bytes,
    /// End the connection: the final frame is written.
    Finish(Error),
}

impl ConnectionState {
    /// Creates the state of a connection opened on the current runtime. `socket` is a second,
    /// non-blocking handle of the socket, if frames may be written to it unencrypted.
    pub(crate) fn new(peer: Peer, limits: Limits, socket: Option<TcpStream>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            home: Handle::current(),
            peer,
            limits,
            output: Mutex::new(Output {
                buffer: Vec::new(),
                in_flight: 0,
                writer_notified: false,
                socket,
                phase: Phase::Open,
            }),
            output_ready: Notify::new(),
            drained: Notify::new(),
            abort: Notify::new(),
            close_requested: Notify::new(),
            closed: watch::Sender::new(None),
            reads: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            blocked: Mutex::default(),
        })
    }

    /// Encodes frames into the output. Returns `false` without encoding if the connection is
    /// closing or closed.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.send_if(|| true, encode)
    }

    /// Like [`send`](Self::send), but only if `condition` holds, which is evaluated under the lock
    /// of the output.
    pub(crate) fn send_if(
        &self,
        condition: impl FnOnce() -> bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut output = lock(&self.output);
        if !matches!(output.phase, Phase::Open) || !condition() {
            return false;
        }
        encode(&mut output.buffer);
        // A failed encoding leaves the buffer empty. Notified then, the writer would find nothing,
        // and `writer_notified` would stay set.
        let notify =
            !output.buffer.is_empty() && !std::mem::replace(&mut output.writer_notified, true);
        let has_socket = output.socket.is_some();
        drop(output);
        if notify {
            match self.this.upgrade() {
                Some(this) if has_socket && io_thread::is_io_thread() => {
                    io_thread::flush_later(this);
                }
                _ => self.output_ready.notify_one(),
            }
        }
        true
    }

    /// Like [`send_if`](Self::send_if), but leaves the frames in the buffer until
    /// [`flush`](Self::flush) or the next `send`.
    pub(crate) fn buffer_if(
        &self,
        condition: impl FnOnce() -> bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut output = lock(&self.output);
        let open = matches!(output.phase, Phase::Open) && condition();
        if open {
            encode(&mut output.buffer);
        }
        open
    }

    /// Writes buffered frames to the socket on the calling thread. Bytes that the socket does not
    /// accept are left to the writer.
    pub(crate) fn flush(&self) {
        let output = lock(&self.output);
        if !output.writer_notified {
            self.write_directly(output);
        }
    }

    /// Writes the frames that [`send`](Self::send) has left to the I/O thread.
    pub(crate) fn flush_deferred(&self) {
        self.write_directly(lock(&self.output));
    }

    fn write_directly(&self, mut output: MutexGuard<'_, Output>) {
        if output.in_flight == 0
            && matches!(output.phase, Phase::Open)
            && let Output { buffer, socket: Some(socket), .. } = &mut *output
            && !buffer.is_empty()
            // The writer meets the same error and reports it.
            && let Ok(count) = socket.write(buffer)
            && count > 0
        {
            self.count_write();
            buffer.drain(..count);
            buffer.shrink_to(MAX_IDLE_BUFFER_BYTES);
        }
        output.writer_notified = !output.buffer.is_empty();
        let notify = output.writer_notified;
        drop(output);
        if notify {
            self.output_ready.notify_one();
        }
    }

    /// Returns whether publishing has to wait: the output is above the high-water mark.
    pub(crate) fn is_full(&self) -> bool {
        let output = lock(&self.output);
        output.buffer.len() + output.in_flight > WRITE_HIGH_WATER_BYTES
            && matches!(output.phase, Phase::Open)
    }

    /// Waits until the output is below the high-water mark, or the connection is closed.
    pub(crate) async fn wait_for_capacity(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if !self.is_full() {
                return;
            }
            drained.await;
        }
    }

    /// Swaps the output with `written`, the buffer that the writer has finished.
    pub(crate) fn next_write(&self, written: &mut Vec<u8>) -> NextWrite {
        written.clear();
        written.shrink_to(MAX_IDLE_BUFFER_BYTES);
        let mut output = lock(&self.output);
        std::mem::swap(&mut output.buffer, written);
        output.in_flight = written.len();
        output.writer_notified = false;
        match &output.phase {
            _ if !written.is_empty() => NextWrite::Bytes,
            Phase::FinalFrame(error) => NextWrite::Finish(error.clone()),
            _ => NextWrite::Wait,
        }
    }

    /// Records that the writer has written all bytes in flight.
    pub(crate) fn write_finished(&self) {
        lock(&self.output).in_flight = 0;
        self.drained.notify_waiters();
    }

    /// Returns whether the writer has bytes in flight.
    pub(crate) fn is_writing(&self) -> bool {
        lock(&self.output).in_flight > 0
    }

    /// Returns whether the writer has something to do.
    pub(crate) fn has_output(&self) -> bool {
        let output = lock(&self.output);
        !output.buffer.is_empty() || matches!(output.phase, Phase::FinalFrame(_))
    }

    /// Waits for a notification that there is output.
    pub(crate) async fn output_ready(&self) {
        self.output_ready.notified().await;
    }

    /// Sends `connection.close`. The driver limits the time until the answer.
    pub(crate) fn close(&self) {
        let close = connection::AMQPMethod::Close(connection::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        });
        self.begin_close(close, Phase::Closing);
    }

    /// Sends `frame` as the final frame and ends the connection with `error` once it is written.
    pub(crate) fn close_with(&self, frame: connection::AMQPMethod, error: Error) {
        self.begin_close(frame, Phase::FinalFrame(error));
    }

    fn begin_close(&self, last: connection::AMQPMethod, phase: Phase) {
        {
            let mut output = lock(&self.output);
            match (&output.phase, &phase) {
                (Phase::Open, _) | (Phase::Closing, Phase::FinalFrame(_)) => {}
                _ => return,
            }
            // Encoding cannot fail: the method consists of constants.
            let _ = encode::method(&mut output.buffer, 0, AMQPClass::Connection(last));
            output.writer_notified = true;
            output.phase = phase;
        }
        self.output_ready.notify_one();
        self.close_requested.notify_one();
        self.drained.notify_waiters();
    }

    /// Returns the error for a close that ran into its timeout.
    pub(crate) fn final_error(&self) -> Error {
        match &lock(&self.output).phase {
            Phase::FinalFrame(error) | Phase::Failed(error) => error.clone(),
            _ => self.closed_error(),
        }
    }

    /// Returns whether this side has sent `connection.close`.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(lock(&self.output).phase, Phase::Closing)
    }

    /// Waits until either side closes the connection.
    pub(crate) async fn close_requested(&self) {
        self.close_requested.notified().await;
    }

    /// Ends the connection without a `connection.close`.
    pub(crate) fn abort(&self) {
        {
            let mut output = lock(&self.output);
            // Acknowledgements still leave: without them, finished messages are delivered again.
            if output.in_flight == 0
                && matches!(output.phase, Phase::Open)
                && let Output {
                    buffer,
                    socket: Some(socket),
                    ..
                } = &mut *output
            {
                let _ = socket.write(buffer);
            }
            // Nothing is sent in the time until the driver reacts.
            output.phase = Phase::Closed;
        }
        self.abort.notify_one();
        self.drained.notify_waiters();
    }

    /// Ends the connection with `error`, without a `connection.close`.
    pub(crate) fn abort_with(&self, error: Error) {
        lock(&self.output).phase = Phase::Failed(error);
        self.abort.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until the connection is aborted.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    /// Drops the output, and with it the second handle of the socket. Wakes waiting publishers.
    pub(crate) fn close_output(&self) {
        {
            let mut output = lock(&self.output);
            output.phase = Phase::Closed;
            output.buffer = Vec::new();
            output.in_flight = 0;
            // The system closes the socket with its last handle.
            output.socket = None;
        }
        self.drained.notify_waiters();
    }

    /// Sets the error that ended the connection, unless one is set.
    pub(crate) fn set_closed(&self, error: &Error) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| error.clone());
            first
        });
    }

    /// Returns whether the connection is neither closing nor closed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(lock(&self.output).phase, Phase::Open)
    }

    /// Waits for the end of the connection and returns the error that caused it.
    pub(crate) async fn closed(&self) -> Error {
        let mut closed = self.closed.subscribe();
        let error = closed.wait_for(Option::is_some).await;
        match error.as_deref() {
            Ok(Some(error)) => error.clone(),
            // Unreachable: `self` owns the sender.
            _ => self.closed_error(),
        }
    }

    /// Returns the error that ended the connection, [`Error::Closed`] while it is closing.
    pub(crate) fn close_reason(&self) -> Error {
        self.closed
            .borrow()
            .clone()
            .unwrap_or_else(|| self.closed_error())
    }

    pub(crate) fn closed_error(&self) -> Error {
        Error::Closed {
            peer: self.peer.clone(),
            what: "connection",
        }
    }

    /// Sets the reason for which the broker accepts no publishes, `None` once it does again.
    pub(crate) fn set_blocked(&self, reason: Option<String>) {
        *lock(&self.blocked) = reason;
    }

    /// Returns the reason for which the broker accepts no publishes, short of memory or disk space.
    pub(crate) fn blocked(&self) -> Option<String> {
        lock(&self.blocked).clone()
    }

    pub(crate) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}
