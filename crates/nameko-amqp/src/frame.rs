//! Cutting the byte stream of a peer into frames.

use crate::decode::Malformed;

/// Frame types and the octet that ends each frame: AMQP 0-9-1, section 4.2.3.
pub(crate) const FRAME_METHOD: u8 = 1;
pub(crate) const FRAME_HEADER: u8 = 2;
pub(crate) const FRAME_BODY: u8 = 3;
pub(crate) const FRAME_HEARTBEAT: u8 = 8;
pub(crate) const FRAME_END: u8 = 0xCE;

/// Type, channel and length before the payload of a frame, the end octet after it.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_PREFIX_BYTES + 1;
const FRAME_PREFIX_BYTES: usize = 7;

/// The largest frame taken from a peer, and what is asked of it (RabbitMQ's own default).
pub(crate) const MAX_FRAME_BYTES: usize = 128 * 1024;

/// One read takes at most this much, unless a frame is larger.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// A whole frame in the buffer of a [`FrameReader`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
}

/// Collects bytes and hands out the whole frames in them.
///
/// Holds at most one frame of the negotiated size and one read.
#[derive(Debug)]
pub(crate) struct FrameReader {
    /// All of it may be read into; grows to the largest frame that came.
    buffer: Vec<u8>,
    /// Where the first byte is that was not handed out.
    start: usize,
    /// Where the bytes that came end.
    end: usize,
    /// The largest frame to take, prefix and end octet included.
    limit: usize,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; READ_BUFFER_BYTES],
            start: 0,
            end: 0,
            limit: MAX_FRAME_BYTES,
        }
    }

    /// Sets the largest frame to take, as negotiated.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The bytes that came and were not handed out.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Room for the next read, never empty. Call after `next` has returned `None`.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = match self.announced() {
            Some(size) => size.min(self.limit),
            None => FRAME_OVERHEAD_BYTES,
        };
        if self.buffer.len() < self.start + wanted.max(FRAME_PREFIX_BYTES)
            || self.end == self.buffer.len()
        {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < wanted {
                self.buffer
                    .resize(wanted.next_multiple_of(READ_BUFFER_BYTES), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Says that a read put `count` bytes into the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next whole frame, `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// The bytes are no frame, or one larger than the limit; seen as soon as its prefix is here.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        let Some(size) = self.announced() else {
            return Ok(None);
        };
        let start = self.start;
        let Some((&[kind, high, low, ..], _)) =
            self.rest().split_first_chunk::<FRAME_PREFIX_BYTES>()
        else {
            return Ok(None);
        };
        let kind = match kind {
            FRAME_METHOD => FrameKind::Method,
            FRAME_HEADER => FrameKind::Header,
            FRAME_BODY => FrameKind::Body,
            FRAME_HEARTBEAT => FrameKind::Heartbeat,
            other => return Err(format!("a frame of unknown type {other}")),
        };
        if size > self.limit {
            return Err(format!(
                "a frame of {size} bytes, {} were agreed",
                self.limit
            ));
        }
        if self.rest().len() < size {
            return Ok(None);
        }
        self.start += size;
        match self.buffer.get(start + FRAME_PREFIX_BYTES..start + size) {
            Some([payload @ .., FRAME_END]) => Ok(Some(Frame {
                kind,
                channel: u16::from_be_bytes([high, low]),
                payload,
            })),
            _ => Err("a frame without its end octet".to_owned()),
        }
    }

    /// The size of the frame that begins the rest, once its prefix is here.
    fn announced(&self) -> Option<usize> {
        let (&[_, _, _, length @ ..], _) = self.rest().split_first_chunk::<FRAME_PREFIX_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        Some(length.saturating_add(FRAME_OVERHEAD_BYTES))
    }
}
