//! What the tasks of a connection and everybody who uses it share.
//!
//! Locks are taken in this order and held for a few lines, never across an `.await`: a channel's state, then the output.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use amq_protocol::protocol::{AMQPClass, connection};
use tokio::sync::{Notify, watch};

use crate::{channel_state::ChannelState, encode, error::Error, peer::Peer, sync::lock};

/// Publishing waits while more than this is unsent. Acknowledgements never wait.
const WRITE_HIGH_WATER_BYTES: usize = 1024 * 1024;

/// A buffer that grew beyond this for one large message is given back.
const MAX_IDLE_BUFFER_BYTES: usize = 256 * 1024;

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// Whom it is to, for errors.
    pub(crate) peer: Peer,
    /// What the handshake agreed on.
    pub(crate) limits: Limits,
    /// What is to be sent.
    output: Mutex<Output>,
    /// Wakes the writer: there is output that it does not know of, or the connection is to end.
    wake: Notify,
    /// Wakes those who wait for the output to fall below the high-water mark.
    drained: Notify,
    /// Ends the connection at once.
    abort: Notify,
    /// Starts the time that a polite close may take.
    close_requested: Notify,
    /// The channels by their number.
    channels: Mutex<Channels>,
    /// Why it ended; set once, by whoever ends it.
    ended: watch::Sender<Option<Error>>,
    /// Counts reads, so that the heartbeat task sees whether the peer is silent.
    pub(crate) reads: AtomicU32,
    /// Counts writes that made progress.
    pub(crate) writes: AtomicU32,
    /// The broker takes no publishes for now (`connection.blocked`): it is short of memory or disk.
    pub(crate) blocked: AtomicBool,
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest frame, in bytes.
    pub(crate) frame_max: usize,
    /// The highest number of a channel.
    pub(crate) channel_max: u16,
    /// The heartbeat interval, zero for none.
    pub(crate) heartbeat: Duration,
}

#[derive(Debug)]
struct Output {
    /// Whole frames, encoded.
    buffer: Vec<u8>,
    /// How many bytes the writer has taken and not written yet.
    in_flight: usize,
    /// The writer knows that there is something in the buffer.
    told: bool,
    /// A second handle of the socket, for who would rather write than wake the writer. None over TLS.
    socket: Option<TcpStream>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// In use.
    Open,
    /// We sent `connection.close` and wait for the answer; nothing may follow it.
    Closing,
    /// The last words are in the buffer; when they are out the writer ends the connection for this reason.
    FinalFrame(Error),
    /// Over.
    Ended,
}

#[derive(Debug, Default)]
struct Channels {
    /// Channel `n` is at `n - 1`.
    slots: Vec<Option<Arc<ChannelState>>>,
    /// Why there can be no more.
    ended: Option<Error>,
}

/// What the writer has to do next.
pub(crate) enum Write {
    /// Wait to be woken.
    Nothing,
    /// Write the bytes that it was given.
    Bytes,
    /// All was written: end the connection.
    End(Error),
}

impl ConnectionState {
    /// `socket`: a second, non-blocking handle of the socket, if frames may be written to it as they are.
    pub(crate) fn new(peer: Peer, limits: Limits, socket: Option<TcpStream>) -> Self {
        Self {
            peer,
            limits,
            output: Mutex::new(Output {
                buffer: Vec::new(),
                in_flight: 0,
                told: false,
                socket,
                phase: Phase::Open,
            }),
            wake: Notify::new(),
            drained: Notify::new(),
            abort: Notify::new(),
            close_requested: Notify::new(),
            channels: Mutex::default(),
            ended: watch::Sender::new(None),
            reads: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            blocked: AtomicBool::new(false),
        }
    }

    /// Encodes into the output, unless the connection is closing or over: then `false`, and nothing is encoded.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.send_while(|| true, encode)
    }

    /// As `send`, but only if `still` holds. It is asked under the output's lock, so that nothing can come between.
    pub(crate) fn send_while(
        &self,
        still: impl FnOnce() -> bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut output = lock(&self.output);
        if !matches!(output.phase, Phase::Open) || !still() {
            return false;
        }
        encode(&mut output.buffer);
        // What cannot be encoded leaves nothing: the writer would go back to sleep without having looked.
        let tell = !output.buffer.is_empty() && !std::mem::replace(&mut output.told, true);
        drop(output);
        if tell {
            self.wake.notify_one();
        }
        true
    }

    /// As `send_while`, but nothing is written until somebody calls [`flush`](Self::flush), or sends something else.
    pub(crate) fn put_while(
        &self,
        still: impl FnOnce() -> bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut output = lock(&self.output);
        let sent = matches!(output.phase, Phase::Open) && still();
        if sent {
            encode(&mut output.buffer);
        }
        sent
    }

    /// Writes what was put into the output on this thread, as far as the socket takes it at once; the writer does the rest.
    pub(crate) fn flush(&self) {
        let mut output = lock(&self.output);
        if output.told || output.buffer.is_empty() {
            return;
        }
        if output.in_flight == 0
            && matches!(output.phase, Phase::Open)
            && let Output { buffer, socket: Some(socket), .. } = &mut *output
            // An error is left for the writer to meet.
            && let Ok(count) = socket.write(buffer)
            && count > 0
        {
            self.note_write();
            buffer.drain(..count);
            if buffer.is_empty() {
                buffer.shrink_to(MAX_IDLE_BUFFER_BYTES);
                return;
            }
        }
        output.told = true;
        drop(output);
        self.wake.notify_one();
    }

    /// Whether publishing has to wait.
    pub(crate) fn is_full(&self) -> bool {
        let output = lock(&self.output);
        output.buffer.len() + output.in_flight > WRITE_HIGH_WATER_BYTES
            && matches!(output.phase, Phase::Open)
    }

    /// Waits until publishing need not wait.
    pub(crate) async fn has_room(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if !self.is_full() {
                return;
            }
            drained.await;
        }
    }

    /// Gives the writer what there is to write, in exchange for the buffer that it has written.
    pub(crate) fn next_write(&self, written: &mut Vec<u8>) -> Write {
        written.clear();
        written.shrink_to(MAX_IDLE_BUFFER_BYTES);
        let mut output = lock(&self.output);
        std::mem::swap(&mut output.buffer, written);
        output.in_flight = written.len();
        output.told = false;
        match &output.phase {
            _ if !written.is_empty() => Write::Bytes,
            Phase::FinalFrame(error) => Write::End(error.clone()),
            _ => Write::Nothing,
        }
    }

    /// The writer has written all it was given.
    pub(crate) fn written(&self) {
        lock(&self.output).in_flight = 0;
        self.drained.notify_waiters();
    }

    /// Whether the writer has bytes in hand.
    pub(crate) fn is_writing(&self) -> bool {
        lock(&self.output).in_flight > 0
    }

    /// Whether there is something to write; the writer asks before it lets others add to it.
    pub(crate) fn has_output(&self) -> bool {
        let output = lock(&self.output);
        !output.buffer.is_empty() || matches!(output.phase, Phase::FinalFrame(_))
    }

    /// Resolves when there may be something to write.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Asks the broker to close the connection; the driver gives it a second.
    pub(crate) fn close(&self) {
        let close = connection::AMQPMethod::Close(connection::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        });
        self.finish(Some(AMQPClass::Connection(close)), Phase::Closing);
    }

    /// Ends the connection for `error` as soon as all that is to be sent, and `last` after it, is out.
    pub(crate) fn close_with(&self, last: connection::AMQPMethod, error: Error) {
        self.finish(Some(AMQPClass::Connection(last)), Phase::FinalFrame(error));
    }

    fn finish(&self, last: Option<AMQPClass>, phase: Phase) {
        {
            let mut output = lock(&self.output);
            match (&output.phase, &phase) {
                (Phase::Open, _) | (Phase::Closing, Phase::FinalFrame(_)) => {}
                _ => return,
            }
            if let Some(last) = last {
                // These methods are made of constants and always fit.
                let _ = encode::method(&mut output.buffer, 0, last);
            }
            output.told = true;
            output.phase = phase;
        }
        self.wake.notify_one();
        self.close_requested.notify_one();
        self.drained.notify_waiters();
    }

    /// Why the connection ends when the time for its end is up.
    pub(crate) fn final_error(&self) -> Error {
        match &lock(&self.output).phase {
            Phase::FinalFrame(error) => error.clone(),
            _ => self.closed_error(),
        }
    }

    /// Whether we asked to close.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(lock(&self.output).phase, Phase::Closing)
    }

    /// Resolves when a close was begun.
    pub(crate) async fn close_requested(&self) {
        self.close_requested.notified().await;
    }

    /// Ends the connection at once.
    pub(crate) fn abort(&self) {
        // So that nothing is sent between now and when the driver notices.
        lock(&self.output).phase = Phase::Ended;
        self.abort.notify_one();
        self.drained.notify_waiters();
    }

    /// Resolves when the connection is to end at once.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    /// The connection is over: everybody who waits for something is told why.
    pub(crate) fn end(&self, error: &Error) {
        {
            let mut output = lock(&self.output);
            output.phase = Phase::Ended;
            output.buffer = Vec::new();
            output.in_flight = 0;
            // The connection ends with its last handle.
            output.socket = None;
        }
        self.drained.notify_waiters();
        let open = {
            let mut channels = lock(&self.channels);
            if channels.ended.is_none() {
                channels.ended = Some(error.clone());
            }
            std::mem::take(&mut channels.slots)
        };
        for channel in open.into_iter().flatten() {
            channel.end(error.clone());
        }
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| error.clone());
            first
        });
    }

    /// Whether it can still be used.
    pub(crate) fn is_open(&self) -> bool {
        matches!(lock(&self.output).phase, Phase::Open)
    }

    /// Resolves when it is over.
    pub(crate) async fn ended(&self) -> Error {
        let mut ended = self.ended.subscribe();
        let error = ended.wait_for(Option::is_some).await;
        match error.as_deref() {
            Ok(Some(error)) => error.clone(),
            // The sender lives in `self`.
            _ => self.closed_error(),
        }
    }

    /// Why it is over, or that it is being closed.
    pub(crate) fn reason(&self) -> Error {
        self.ended
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

    /// Takes the lowest free channel number.
    pub(crate) fn add_channel(
        &self,
        new: impl FnOnce(u16) -> Arc<ChannelState>,
    ) -> Result<Arc<ChannelState>, Error> {
        let mut channels = lock(&self.channels);
        if let Some(error) = &channels.ended {
            return Err(error.clone());
        }
        let at = match channels.slots.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                channels.slots.push(None);
                channels.slots.len() - 1
            }
        };
        let id = u16::try_from(at + 1).unwrap_or(u16::MAX);
        if id > self.limits.channel_max {
            channels.slots.truncate(at);
            return Err(Error::Unsendable {
                reason: format!(
                    "all {} channels that {} allows on a connection are in use",
                    self.limits.channel_max, self.peer
                ),
            });
        }
        let channel = new(id);
        channels.slots[at] = Some(Arc::clone(&channel));
        Ok(channel)
    }

    /// The channel with this number.
    pub(crate) fn channel(&self, id: u16) -> Option<Arc<ChannelState>> {
        let at = usize::from(id).checked_sub(1)?;
        lock(&self.channels).slots.get(at)?.clone()
    }

    /// Frees a channel's number.
    pub(crate) fn remove_channel(&self, id: u16) {
        let Some(at) = usize::from(id).checked_sub(1) else {
            return;
        };
        if let Some(slot) = lock(&self.channels).slots.get_mut(at) {
            *slot = None;
        }
    }

    pub(crate) fn note_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}
