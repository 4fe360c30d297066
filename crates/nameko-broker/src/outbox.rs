//! What is to be sent on one connection: filled by whoever has something for it, emptied by the connection's own task.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::{AMQPClass, constants},
};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{frame::OVERHEAD, message::Message, sync::lock, vhost::ConnectionId};

/// Above this many bytes not yet written, nothing more is delivered to the connection's consumers or read from it.
const FULL: usize = 1 << 20;

/// Bodies from this size on are sent from where they are; smaller ones are copied next to their frames.
const SHARED_BODY: usize = 8 << 10;

/// The output of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) connection: ConnectionId,
    buffer: Mutex<Buffer>,
    /// Bytes not yet accepted by the socket, those the connection's task already took included.
    unsent: AtomicUsize,
    /// Set when a delivery was held back because the box was full; the connection asks for it again once it has room.
    held_back: AtomicBool,
    /// Set to have the connection closed by force.
    forced: Mutex<Option<String>>,
    /// Wakes the connection's task.
    pub(crate) wake: Notify,
}

/// Frames in the order they go out.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    done: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// The agreed limit of a whole frame; 0 is no limit.
    frame_max: usize,
}

impl Outbox {
    pub(crate) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            buffer: Mutex::default(),
            unsent: AtomicUsize::new(0),
            held_back: AtomicBool::new(false),
            forced: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Adds frames. Does not wake the connection's task.
    pub(crate) fn write(&self, frames: impl FnOnce(&mut Buffer)) {
        let mut buffer = lock(&self.buffer);
        let before = buffer.tail.len();
        let done = buffer.done.len();
        frames(&mut buffer);
        let added = if buffer.done.len() == done {
            buffer.tail.len() - before
        } else {
            let moved: usize = buffer.done.iter().skip(done).map(Bytes::len).sum();
            moved + buffer.tail.len() - before
        };
        self.unsent.fetch_add(added, Ordering::SeqCst);
    }

    /// Adds one method.
    pub(crate) fn method(&self, channel: u16, method: AMQPClass) {
        self.write(|buffer| buffer.method(channel, method));
    }

    /// Frames of content are cut to this size from now on.
    pub(crate) fn set_frame_max(&self, frame_max: usize) {
        lock(&self.buffer).frame_max = frame_max;
    }

    /// Moves everything to be sent to `pending`.
    pub(crate) fn take(&self, pending: &mut VecDeque<Bytes>) {
        let mut buffer = lock(&self.buffer);
        pending.append(&mut buffer.done);
        if !buffer.tail.is_empty() {
            pending.push_back(Bytes::from(std::mem::take(&mut buffer.tail)));
        }
    }

    /// Notes that the socket accepted so many bytes.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Whether there is too much unsent to add more than replies.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent.load(Ordering::SeqCst) >= FULL
    }

    /// Whether a consumer may get a message now; if not it is remembered that one waits.
    pub(crate) fn has_room(&self) -> bool {
        if !self.is_full() {
            return true;
        }
        self.held_back.store(true, Ordering::SeqCst);
        // Looked at again: the connection may have emptied the box in between, and then nobody would ask again.
        !self.is_full()
    }

    /// Whether a delivery was held back and there is room now; true only once for it.
    pub(crate) fn take_held_back(&self) -> bool {
        !self.is_full()
            && self.held_back.load(Ordering::SeqCst)
            && self.held_back.swap(false, Ordering::SeqCst)
    }

    /// Has the connection closed with 320 CONNECTION_FORCED and this reason.
    pub(crate) fn force_close(&self, reason: &str) {
        lock(&self.forced).get_or_insert_with(|| reason.to_owned());
        self.wake.notify_one();
    }

    /// The reason of a forced close; only once.
    pub(crate) fn take_forced(&self) -> Option<String> {
        lock(&self.forced).take()
    }
}

impl Buffer {
    /// Adds a method.
    pub(crate) fn method(&mut self, channel: u16, method: AMQPClass) {
        self.frame(&AMQPFrame::Method(channel, method));
    }

    /// Adds any frame by way of the codec.
    pub(crate) fn frame(&mut self, frame: &AMQPFrame) {
        // A vector of its own, since on an error the codec keeps the one it writes to.
        match gen_frame(frame)(WriteContext::from(Vec::with_capacity(64))) {
            Ok(written) => self.tail.extend(written.into_inner().0),
            Err(error) => {
                tracing::error!(%error, ?frame, "a frame could not be encoded and is not sent")
            }
        }
    }

    /// Adds a `basic.deliver` with its message; written by hand since it is what a broker sends most.
    pub(crate) fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &str,
        delivery_tag: u64,
        redelivered: bool,
        message: &Message,
    ) {
        self.basic(channel, 60, |tail| {
            put_short_string(tail, consumer_tag);
            tail.extend(delivery_tag.to_be_bytes());
            tail.push(redelivered.into());
            put_short_string(tail, &message.exchange);
            put_short_string(tail, &message.routing_key);
        });
        self.content(channel, message);
    }

    /// Adds header and body frames.
    pub(crate) fn content(&mut self, channel: u16, message: &Message) {
        self.head(constants::FRAME_HEADER, channel, message.header.len());
        self.tail.extend_from_slice(&message.header);
        self.tail.push(constants::FRAME_END);
        let most = match self.frame_max {
            0 => message.body.len().max(1),
            max => max.saturating_sub(OVERHEAD).max(1),
        };
        for start in (0..message.body.len()).step_by(most) {
            let part = message
                .body
                .slice(start..message.body.len().min(start + most));
            self.head(constants::FRAME_BODY, channel, part.len());
            if part.len() < SHARED_BODY {
                self.tail.extend_from_slice(&part);
            } else {
                self.done
                    .push_back(Bytes::from(std::mem::take(&mut self.tail)));
                self.done.push_back(part);
            }
            self.tail.push(constants::FRAME_END);
        }
    }

    /// Adds raw bytes, such as the protocol header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn head(&mut self, kind: u8, channel: u16, size: usize) {
        self.tail.push(kind);
        self.tail.extend(channel.to_be_bytes());
        // A payload here is at most frame_max, or a body within the message size limit, which is a u32.
        self.tail
            .extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// A method of class basic, with its size filled in afterwards.
    fn basic(&mut self, channel: u16, method: u16, arguments: impl FnOnce(&mut Vec<u8>)) {
        let start = self.tail.len();
        self.head(constants::FRAME_METHOD, channel, 0);
        self.tail.extend([0, 60]);
        self.tail.extend(method.to_be_bytes());
        arguments(&mut self.tail);
        let size = (self.tail.len() - start - crate::frame::HEAD) as u32;
        self.tail[start + 3..start + 7].copy_from_slice(&size.to_be_bytes());
        self.tail.push(constants::FRAME_END);
    }
}

/// Names came in as short strings and fit again.
fn put_short_string(tail: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..255).unwrap_or(bytes);
    tail.push(bytes.len() as u8);
    tail.extend_from_slice(bytes);
}
