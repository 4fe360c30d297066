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
    protocol::{AMQPClass, basic, constants},
};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{frame::OVERHEAD, message::Message, sync::lock, vhost::ConnectionId};

/// Above this many bytes not yet written, nothing more is delivered to the connection's consumers.
const FULL: usize = 1 << 20;

/// Above this many bytes, bodies of deliveries not counted, nothing more is read from the connection. It is more than
/// [`FULL`], so that deliveries alone never stop the reading: a client may publish while it does not read, and both sides
/// would wait for each other.
const OVERFULL: usize = 4 << 20;

/// Above this many bytes not yet written, direct replies are dropped: they can't wait in a queue.
const NO_MORE_REPLIES: usize = 256 << 20;

/// Bodies from this size on are sent from where they are; smaller ones are copied next to their frames.
const SHARED_BODY: usize = 8 << 10;

/// The output of one connection.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    pub(crate) connection: ConnectionId,
    buffer: Mutex<FrameBuffer>,
    /// Bytes not yet accepted by the socket, those the connection's task already took included.
    unsent: AtomicUsize,
    /// Those of them that are no bodies of deliveries.
    own: AtomicUsize,
    /// Set when a delivery was held back because the box was full; the connection asks for it again once it has room.
    held_back: AtomicBool,
    /// Set to have the connection closed by force.
    forced: Mutex<Option<String>>,
    /// Wakes the connection's task.
    pub(crate) wake: Notify,
    /// Whether it is in its virtual host's list of those to be woken; changes with that list, behind its lock.
    pub(crate) to_be_woken: AtomicBool,
}

/// Bytes to be sent.
#[derive(Debug)]
pub(crate) struct OutChunk {
    pub(crate) bytes: Bytes,
    /// The body of a delivery, which is limited by [`FULL`] and not by [`OVERFULL`].
    pub(crate) delivered: bool,
}

/// Frames in the order they go out.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    done: VecDeque<OutChunk>,
    tail: Vec<u8>,
    /// How much of `tail` was counted.
    counted: usize,
    /// Bytes added and not counted, which are no longer in `tail`: bodies of deliveries are the second number.
    added: (usize, usize),
    /// The agreed limit of a whole frame; 0 is no limit.
    frame_max: usize,
}

impl SendBuffer {
    pub(crate) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            buffer: Mutex::default(),
            unsent: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            held_back: AtomicBool::new(false),
            forced: Mutex::default(),
            wake: Notify::new(),
            to_be_woken: AtomicBool::new(false),
        }
    }

    /// Adds frames. Does not wake the connection's task.
    pub(crate) fn write(&self, frames: impl FnOnce(&mut FrameBuffer)) {
        let mut buffer = lock(&self.buffer);
        frames(&mut buffer);
        let (own, delivered) = buffer.take_added();
        self.own.fetch_add(own, Ordering::Relaxed);
        self.unsent.fetch_add(own + delivered, Ordering::SeqCst);
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
    pub(crate) fn take(&self, pending: &mut VecDeque<OutChunk>) {
        let mut buffer = lock(&self.buffer);
        buffer.cut();
        pending.append(&mut buffer.done);
    }

    /// Notes that so many bytes of a piece were accepted by the socket.
    pub(crate) fn sent(&self, bytes: usize, delivered: bool) {
        if !delivered {
            self.own.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.unsent.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Whether the connection may be read, which makes answers.
    pub(crate) fn takes_answers(&self) -> bool {
        self.own.load(Ordering::Relaxed) < OVERFULL
    }

    fn is_full(&self) -> bool {
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

    /// Whether a direct reply may be added.
    pub(crate) fn has_room_for_replies(&self) -> bool {
        self.unsent.load(Ordering::SeqCst) < NO_MORE_REPLIES
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

impl FrameBuffer {
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
        self.content(channel, message, true);
    }

    /// Adds a method that answers the client, with a message.
    pub(crate) fn answer(&mut self, channel: u16, method: basic::AMQPMethod, message: &Message) {
        self.method(channel, AMQPClass::Basic(method));
        self.content(channel, message, false);
    }

    /// Adds header and body frames.
    fn content(&mut self, channel: u16, message: &Message, delivered: bool) {
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
                self.cut();
                if delivered {
                    self.added.1 += part.len();
                } else {
                    self.added.0 += part.len();
                }
                self.done.push_back(OutChunk {
                    bytes: part,
                    delivered,
                });
            }
            self.tail.push(constants::FRAME_END);
        }
    }

    /// Adds raw bytes, such as the protocol header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Ends the piece that is being written.
    fn cut(&mut self) {
        self.added.0 += self.tail.len() - self.counted;
        self.counted = 0;
        if !self.tail.is_empty() {
            self.done.push_back(OutChunk {
                bytes: std::mem::take(&mut self.tail).into(),
                delivered: false,
            });
        }
    }

    /// What was added since it was last asked; bodies of deliveries are the second number.
    fn take_added(&mut self) -> (usize, usize) {
        let (own, delivered) = std::mem::take(&mut self.added);
        let in_tail = self.tail.len() - self.counted;
        self.counted = self.tail.len();
        (own + in_tail, delivered)
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

/// ConnectionIndex came in as short strings and fit again.
fn put_short_string(tail: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..255).unwrap_or(bytes);
    tail.push(bytes.len() as u8);
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_counted_until_it_is_sent() {
        let outbox = SendBuffer::new(ConnectionId(1));
        outbox.set_frame_max(20_008);
        let message = Message {
            routing_key: "q".into(),
            header: Bytes::from_static(&[0; 14]),
            body: vec![7; 30_000].into(),
            ..Message::default()
        };
        outbox.write(|buffer| buffer.raw(b"first"));
        outbox.write(|buffer| buffer.deliver(1, "tag", 1, false, &message));
        outbox.write(|buffer| buffer.raw(b"last"));
        let mut pending = VecDeque::new();
        outbox.take(&mut pending);
        let total: usize = pending.iter().map(|piece| piece.bytes.len()).sum();
        let delivered: usize = pending
            .iter()
            .filter(|piece| piece.delivered)
            .map(|piece| piece.bytes.len())
            .sum();
        assert_eq!(delivered, 30_000);
        assert_eq!(outbox.unsent.load(Ordering::Relaxed), total);
        assert_eq!(outbox.own.load(Ordering::Relaxed), total - delivered);
        for piece in &pending {
            outbox.sent(piece.bytes.len(), piece.delivered);
        }
        assert_eq!(
            (
                outbox.unsent.load(Ordering::Relaxed),
                outbox.own.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }

    #[test]
    fn a_full_box_holds_deliveries_back_and_says_when_there_is_room_again() {
        let outbox = SendBuffer::new(ConnectionId(1));
        assert!(outbox.has_room());
        assert!(!outbox.take_held_back());
        outbox.write(|buffer| buffer.raw(&vec![0; FULL]));
        assert!(!outbox.has_room() && outbox.takes_answers());
        assert!(!outbox.take_held_back());
        outbox.sent(1, false);
        assert!(outbox.take_held_back());
        assert!(!outbox.take_held_back());
        outbox.write(|buffer| buffer.raw(&vec![0; OVERFULL]));
        assert!(!outbox.takes_answers());
    }
}
