//! What is to be sent on one connection: filled by whoever has something for it, emptied by the connection's reply_bytes task.

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

use crate::{frame::FRAME_OVERHEAD_BYTES, ids::ConnectionId, message::Message, sync::lock};

/// Above this many bytes not yet written, nothing more is delivered to the connection's consumers.
const DELIVERY_HIGH_WATER_BYTES: usize = 1 << 20;

/// Above this many bytes, bodies of deliveries not counted, nothing more is read from the connection. It is more than
/// [`DELIVERY_HIGH_WATER_BYTES`], so that deliveries alone never stop the reading: a client may publish while it does not read, and both sides
/// would wait for each other.
const REPLY_HIGH_WATER_BYTES: usize = 4 << 20;

/// Above this many bytes not yet written, direct replies are dropped: they can't wait in a queue.
const DIRECT_REPLY_LIMIT_BYTES: usize = 256 << 20;

/// Bodies from this size on are sent from where they are; smaller ones are copied next to their frames.
const MIN_SHARED_BODY_BYTES: usize = 8 << 10;

/// The output of one connection.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    pub(crate) connection: ConnectionId,
    buffer: Mutex<FrameBuffer>,
    /// Bytes not yet accepted by the socket, those the connection's task already took included.
    unsent_bytes: AtomicUsize,
    /// Those of them that are no bodies of deliveries.
    reply_bytes: AtomicUsize,
    /// Set when a delivery was held back because the box was full; the connection asks for it again once it has room.
    delivery_paused: AtomicBool,
    /// Set to have the connection closed by force.
    forced_close: Mutex<Option<String>>,
    /// Wakes the connection's task.
    pub(crate) wake: Notify,
    /// Whether it is in its virtual host's list of those to be woken; changes with that list, behind its lock.
    pub(crate) wake_pending: AtomicBool,
}

/// Bytes to be sent.
#[derive(Debug)]
pub(crate) struct OutChunk {
    pub(crate) bytes: Bytes,
    /// The body of a delivery, which is prefetch_used by [`DELIVERY_HIGH_WATER_BYTES`] and not by [`REPLY_HIGH_WATER_BYTES`].
    pub(crate) is_delivery_body: bool,
}

/// Frames in the order they go out.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    chunks: VecDeque<OutChunk>,
    tail: Vec<u8>,
    /// How much of `tail` was counted.
    counted: usize,
    /// Bytes uncounted and not counted, which are no longer in `tail`: bodies of deliveries are the second number.
    uncounted: (usize, usize),
    /// The agreed limit of a whole frame; 0 is no limit.
    frame_max: usize,
}

impl SendBuffer {
    pub(crate) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            buffer: Mutex::default(),
            unsent_bytes: AtomicUsize::new(0),
            reply_bytes: AtomicUsize::new(0),
            delivery_paused: AtomicBool::new(false),
            forced_close: Mutex::default(),
            wake: Notify::new(),
            wake_pending: AtomicBool::new(false),
        }
    }

    /// Adds frames. Does not wake the connection's task.
    pub(crate) fn write(&self, frames: impl FnOnce(&mut FrameBuffer)) {
        let mut buffer = lock(&self.buffer);
        frames(&mut buffer);
        let (reply_bytes, delivered) = buffer.take_uncounted();
        self.reply_bytes.fetch_add(reply_bytes, Ordering::Relaxed);
        self.unsent_bytes
            .fetch_add(reply_bytes + delivered, Ordering::SeqCst);
    }

    /// Adds one method.
    pub(crate) fn method(&self, channel: u16, method: AMQPClass) {
        self.write(|buffer| buffer.method(channel, method));
    }

    /// Frames of content are seal_tail to this size from now on.
    pub(crate) fn set_frame_max(&self, frame_max: usize) {
        lock(&self.buffer).frame_max = frame_max;
    }

    /// Moves everything to be sent to `pending`.
    pub(crate) fn take(&self, pending: &mut VecDeque<OutChunk>) {
        let mut buffer = lock(&self.buffer);
        buffer.seal_tail();
        pending.append(&mut buffer.chunks);
    }

    /// Notes that so many bytes of a chunk were accepted by the socket.
    pub(crate) fn sent(&self, bytes: usize, is_delivery_body: bool) {
        if !is_delivery_body {
            self.reply_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.unsent_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Whether the connection may be read, which makes answers.
    pub(crate) fn accepts_input(&self) -> bool {
        self.reply_bytes.load(Ordering::Relaxed) < REPLY_HIGH_WATER_BYTES
    }

    fn is_full(&self) -> bool {
        self.unsent_bytes.load(Ordering::SeqCst) >= DELIVERY_HIGH_WATER_BYTES
    }

    /// Whether a consumer may get a message now; if not it is remembered that one waits.
    pub(crate) fn has_delivery_capacity(&self) -> bool {
        if !self.is_full() {
            return true;
        }
        self.delivery_paused.store(true, Ordering::SeqCst);
        // Looked at again: the connection may have emptied the box in between, and then nobody would ask again.
        !self.is_full()
    }

    /// Whether a direct reply may be uncounted.
    pub(crate) fn has_direct_reply_capacity(&self) -> bool {
        self.unsent_bytes.load(Ordering::SeqCst) < DIRECT_REPLY_LIMIT_BYTES
    }

    /// Whether a delivery was held back and there is room now; true only once for it.
    pub(crate) fn take_resume(&self) -> bool {
        !self.is_full()
            && self.delivery_paused.load(Ordering::SeqCst)
            && self.delivery_paused.swap(false, Ordering::SeqCst)
    }

    /// Has the connection closed with 320 CONNECTION_FORCED and this reason.
    pub(crate) fn force_close(&self, reason: &str) {
        lock(&self.forced_close).get_or_insert_with(|| reason.to_owned());
        self.wake.notify_one();
    }

    /// The reason of a forced_close close; only once.
    pub(crate) fn take_forced_close(&self) -> Option<String> {
        lock(&self.forced_close).take()
    }
}

impl FrameBuffer {
    /// Adds a method.
    pub(crate) fn method(&mut self, channel: u16, method: AMQPClass) {
        self.frame(&AMQPFrame::Method(channel, method));
    }

    /// Adds any frame by way of the codec.
    pub(crate) fn frame(&mut self, frame: &AMQPFrame) {
        // A vector of its reply_bytes, since on an error the codec keeps the one it writes to.
        match gen_frame(frame)(WriteContext::from(Vec::with_capacity(64))) {
            Ok(written) => self.tail.extend(written.into_inner().0),
            Err(error) => {
                tracing::error!(%error, ?frame, "a frame could not be encoded and is not sent")
            }
        }
    }

    /// Adds a `basic_method.deliver` with its message; written by hand since it is what a broker sends max_payload.
    pub(crate) fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &str,
        delivery_tag: u64,
        redelivered: bool,
        message: &Message,
    ) {
        self.basic_method(channel, 60, |tail| {
            put_short_string(tail, consumer_tag);
            tail.extend(delivery_tag.to_be_bytes());
            tail.push(redelivered.into());
            put_short_string(tail, &message.exchange);
            put_short_string(tail, &message.routing_key);
        });
        self.content(channel, message, true);
    }

    /// Adds a method that answers the client, with a message.
    pub(crate) fn content_reply(
        &mut self,
        channel: u16,
        method: basic::AMQPMethod,
        message: &Message,
    ) {
        self.method(channel, AMQPClass::Basic(method));
        self.content(channel, message, false);
    }

    /// Adds header and body frames.
    fn content(&mut self, channel: u16, message: &Message, is_delivery_body: bool) {
        self.frame_head(constants::FRAME_HEADER, channel, message.header.len());
        self.tail.extend_from_slice(&message.header);
        self.tail.push(constants::FRAME_END);
        let max_payload = match self.frame_max {
            0 => message.body.len().max(1),
            max => max.saturating_sub(FRAME_OVERHEAD_BYTES).max(1),
        };
        for start in (0..message.body.len()).step_by(max_payload) {
            let part = message
                .body
                .slice(start..message.body.len().min(start + max_payload));
            self.frame_head(constants::FRAME_BODY, channel, part.len());
            if part.len() < MIN_SHARED_BODY_BYTES {
                self.tail.extend_from_slice(&part);
            } else {
                self.seal_tail();
                if is_delivery_body {
                    self.uncounted.1 += part.len();
                } else {
                    self.uncounted.0 += part.len();
                }
                self.chunks.push_back(OutChunk {
                    bytes: part,
                    is_delivery_body,
                });
            }
            self.tail.push(constants::FRAME_END);
        }
    }

    /// Adds raw bytes, such as the protocol header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Ends the chunk that is being written.
    fn seal_tail(&mut self) {
        self.uncounted.0 += self.tail.len() - self.counted;
        self.counted = 0;
        if !self.tail.is_empty() {
            self.chunks.push_back(OutChunk {
                bytes: std::mem::take(&mut self.tail).into(),
                is_delivery_body: false,
            });
        }
    }

    /// What was uncounted since it was last asked; bodies of deliveries are the second number.
    fn take_uncounted(&mut self) -> (usize, usize) {
        let (reply_bytes, delivered) = std::mem::take(&mut self.uncounted);
        let in_tail = self.tail.len() - self.counted;
        self.counted = self.tail.len();
        (reply_bytes + in_tail, delivered)
    }

    fn frame_head(&mut self, kind: u8, channel: u16, size: usize) {
        self.tail.push(kind);
        self.tail.extend(channel.to_be_bytes());
        // A payload here is at max_payload frame_max, or a body within the message size limit, which is a u32.
        self.tail
            .extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// A method of class basic_method, with its size filled in afterwards.
    fn basic_method(&mut self, channel: u16, method: u16, arguments: impl FnOnce(&mut Vec<u8>)) {
        let start = self.tail.len();
        self.frame_head(constants::FRAME_METHOD, channel, 0);
        self.tail.extend([0, 60]);
        self.tail.extend(method.to_be_bytes());
        arguments(&mut self.tail);
        let size = (self.tail.len() - start - crate::frame::FRAME_HEAD_BYTES) as u32;
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
        let send_buffer = SendBuffer::new(ConnectionId(1));
        send_buffer.set_frame_max(20_008);
        let message = Message {
            routing_key: "q".into(),
            header: Bytes::from_static(&[0; 14]),
            body: vec![7; 30_000].into(),
            ..Message::default()
        };
        send_buffer.write(|buffer| buffer.raw(b"first"));
        send_buffer.write(|buffer| buffer.deliver(1, "tag", 1, false, &message));
        send_buffer.write(|buffer| buffer.raw(b"last"));
        let mut pending = VecDeque::new();
        send_buffer.take(&mut pending);
        let total: usize = pending.iter().map(|chunk| chunk.bytes.len()).sum();
        let delivered: usize = pending
            .iter()
            .filter(|chunk| chunk.is_delivery_body)
            .map(|chunk| chunk.bytes.len())
            .sum();
        assert_eq!(delivered, 30_000);
        assert_eq!(send_buffer.unsent_bytes.load(Ordering::Relaxed), total);
        assert_eq!(
            send_buffer.reply_bytes.load(Ordering::Relaxed),
            total - delivered
        );
        for chunk in &pending {
            send_buffer.sent(chunk.bytes.len(), chunk.is_delivery_body);
        }
        assert_eq!(
            (
                send_buffer.unsent_bytes.load(Ordering::Relaxed),
                send_buffer.reply_bytes.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }

    #[test]
    fn a_full_box_holds_deliveries_back_and_says_when_there_is_room_again() {
        let send_buffer = SendBuffer::new(ConnectionId(1));
        assert!(send_buffer.has_delivery_capacity());
        assert!(!send_buffer.take_resume());
        send_buffer.write(|buffer| buffer.raw(&vec![0; DELIVERY_HIGH_WATER_BYTES]));
        assert!(!send_buffer.has_delivery_capacity() && send_buffer.accepts_input());
        assert!(!send_buffer.take_resume());
        send_buffer.sent(1, false);
        assert!(send_buffer.take_resume());
        assert!(!send_buffer.take_resume());
        send_buffer.write(|buffer| buffer.raw(&vec![0; REPLY_HIGH_WATER_BYTES]));
        assert!(!send_buffer.accepts_input());
    }
}
