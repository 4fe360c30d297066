//! Send buffer of a connection: filled by any task, flushed by the connection's own task.

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

/// High-water mark of unsent bytes above which deliveries to the connection's consumers are paused.
const DELIVERY_HIGH_WATER_BYTES: usize = 1 << 20;

/// High-water mark of unsent bytes, without the bodies of deliveries, above which the connection is
/// not read. It exceeds [`DELIVERY_HIGH_WATER_BYTES`] so that deliveries alone never pause reading:
/// a client may publish while it does not read, and both sides would wait for each other.
const REPLY_HIGH_WATER_BYTES: usize = 4 << 20;

/// Limit of unsent bytes above which direct replies are dropped, since no queue can hold them.
const DIRECT_REPLY_LIMIT_BYTES: usize = 256 << 20;

/// Minimum size of a body sent without copying; smaller ones are copied next to their frames.
const MIN_SHARED_BODY_BYTES: usize = 8 << 10;

/// Outgoing data of a connection.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    pub(crate) connection: ConnectionId,
    buffer: Mutex<FrameBuffer>,
    /// Bytes not yet accepted by the socket, including those already taken by the connection's
    /// task.
    unsent_bytes: AtomicUsize,
    /// The part of `unsent_bytes` that is not bodies of deliveries.
    reply_bytes: AtomicUsize,
    /// Set when a delivery was held back because the buffer was full. The connection resumes
    /// deliveries once there is capacity.
    delivery_paused: AtomicBool,
    /// Reason for a forced close, if one was requested.
    forced_close: Mutex<Option<String>>,
    /// Wakes the connection's task.
    pub(crate) wake: Notify,
    /// Whether this buffer is in the virtual host's list `wakes`. Changed only under its lock.
    pub(crate) wake_pending: AtomicBool,
}

/// Contiguous outgoing bytes.
#[derive(Debug)]
pub(crate) struct OutChunk {
    pub(crate) bytes: Bytes,
    /// Whether this is the body of a delivery, limited by [`DELIVERY_HIGH_WATER_BYTES`] and not by
    /// [`REPLY_HIGH_WATER_BYTES`].
    pub(crate) is_delivery_body: bool,
}

/// Encoded frames in sending order.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    chunks: VecDeque<OutChunk>,
    tail: Vec<u8>,
    /// The part of `tail` that is counted already.
    counted: usize,
    /// Bytes moved out of `tail` since the last count: first without, then with bodies of
    /// deliveries only.
    uncounted: (usize, usize),
    /// Negotiated limit of a whole frame; 0 is unlimited.
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

    /// Appends frames. Does not wake the connection's task.
    pub(crate) fn write(&self, frames: impl FnOnce(&mut FrameBuffer)) {
        let mut buffer = lock(&self.buffer);
        frames(&mut buffer);
        let (reply_bytes, delivered) = buffer.take_uncounted();
        self.reply_bytes.fetch_add(reply_bytes, Ordering::Relaxed);
        self.unsent_bytes
            .fetch_add(reply_bytes + delivered, Ordering::SeqCst);
    }

    /// Appends a method.
    pub(crate) fn method(&self, channel: u16, method: AMQPClass) {
        self.write(|buffer| buffer.method(channel, method));
    }

    /// Sets the size above which content is split into several frames.
    pub(crate) fn set_frame_max(&self, frame_max: usize) {
        lock(&self.buffer).frame_max = frame_max;
    }

    /// Moves all data to `pending`.
    pub(crate) fn take(&self, pending: &mut VecDeque<OutChunk>) {
        let mut buffer = lock(&self.buffer);
        buffer.seal_tail();
        pending.append(&mut buffer.chunks);
    }

    /// Records that the socket accepted a number of bytes of a chunk.
    pub(crate) fn sent(&self, bytes: usize, is_delivery_body: bool) {
        if !is_delivery_body {
            self.reply_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.unsent_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Returns whether more input may be processed, which produces replies.
    pub(crate) fn accepts_input(&self) -> bool {
        self.reply_bytes.load(Ordering::Relaxed) < REPLY_HIGH_WATER_BYTES
    }

    fn is_full(&self) -> bool {
        self.unsent_bytes.load(Ordering::SeqCst) >= DELIVERY_HIGH_WATER_BYTES
    }

    /// Returns whether a consumer may receive a message now. If not, deliveries are marked as
    /// paused.
    pub(crate) fn has_delivery_capacity(&self) -> bool {
        if !self.is_full() {
            return true;
        }
        self.delivery_paused.store(true, Ordering::SeqCst);
        // Checked again: the connection may have been flushed in between, and would not resume.
        !self.is_full()
    }

    /// Returns whether a direct reply may be appended.
    pub(crate) fn has_direct_reply_capacity(&self) -> bool {
        self.unsent_bytes.load(Ordering::SeqCst) < DIRECT_REPLY_LIMIT_BYTES
    }

    /// Returns whether paused deliveries can resume, and resets the mark.
    pub(crate) fn take_resume(&self) -> bool {
        !self.is_full()
            && self.delivery_paused.load(Ordering::SeqCst)
            && self.delivery_paused.swap(false, Ordering::SeqCst)
    }

    /// Requests a close with 320 CONNECTION_FORCED and a reason.
    pub(crate) fn force_close(&self, reason: &str) {
        lock(&self.forced_close).get_or_insert_with(|| reason.to_owned());
        self.wake.notify_one();
    }

    /// Takes the reason for a forced close.
    pub(crate) fn take_forced_close(&self) -> Option<String> {
        lock(&self.forced_close).take()
    }
}

impl FrameBuffer {
    /// Appends a method.
    pub(crate) fn method(&mut self, channel: u16, method: AMQPClass) {
        self.frame(&AMQPFrame::Method(channel, method));
    }

    /// Appends a frame, encoded by the codec.
    pub(crate) fn frame(&mut self, frame: &AMQPFrame) {
        // A separate vector, since the codec does not return it on an error.
        match gen_frame(frame)(WriteContext::from(Vec::with_capacity(64))) {
            Ok(written) => self.tail.extend(written.into_inner().0),
            Err(error) => {
                tracing::error!(%error, ?frame, "cannot encode a frame, so it is not sent")
            }
        }
    }

    /// Appends `basic.deliver` and its message. Encoded without the codec, since it is the most
    /// frequent method.
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

    /// Appends a reply that carries a message.
    pub(crate) fn content_reply(
        &mut self,
        channel: u16,
        method: basic::AMQPMethod,
        message: &Message,
    ) {
        self.method(channel, AMQPClass::Basic(method));
        self.content(channel, message, false);
    }

    /// Appends header and body frames.
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

    /// Appends raw bytes, such as the protocol header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Completes the chunk in `tail`.
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

    /// Returns the bytes added since the last call: first without, then with bodies of deliveries
    /// only.
    fn take_uncounted(&mut self) -> (usize, usize) {
        let (reply_bytes, delivered) = std::mem::take(&mut self.uncounted);
        let in_tail = self.tail.len() - self.counted;
        self.counted = self.tail.len();
        (reply_bytes + in_tail, delivered)
    }

    fn frame_head(&mut self, kind: u8, channel: u16, size: usize) {
        self.tail.push(kind);
        self.tail.extend(channel.to_be_bytes());
        // A payload is at most `frame_max` or within the message size limit, so it fits.
        self.tail
            .extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// Appends a method of class `basic`; its size is filled in afterwards.
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

/// Names originate from short strings, so they fit.
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
    fn bytes_are_counted_until_they_are_sent() {
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
    fn a_full_buffer_pauses_deliveries_until_it_has_capacity() {
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
