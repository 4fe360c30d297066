//! Splits the byte stream of a peer into frames.

use crate::decode::Malformed;

/// Frame types, and the last octet of every frame: AMQP 0-9-1, section 4.2.3.
pub(crate) const FRAME_METHOD: u8 = 1;
pub(crate) const FRAME_HEADER: u8 = 2;
pub(crate) const FRAME_BODY: u8 = 3;
pub(crate) const FRAME_HEARTBEAT: u8 = 8;
pub(crate) const FRAME_END: u8 = 0xCE;

/// Bytes of a frame besides its payload: type, channel and length before it, the end octet after
/// it.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_PREFIX_BYTES + 1;
const FRAME_PREFIX_BYTES: usize = 7;

/// Largest frame accepted and requested, which is RabbitMQ's default.
pub(crate) const MAX_FRAME_BYTES: usize = 128 * 1024;

/// Size of one read, unless a frame is larger.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// A complete frame in the buffer of a [`FrameReader`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
}

/// A buffer that collects bytes and returns complete frames.
///
/// It holds at most one frame of the negotiated size and one read.
#[derive(Debug)]
pub(crate) struct FrameReader {
    /// Initialised bytes, all of them available for reads. Grows to the largest frame received.
    buffer: Vec<u8>,
    /// Index of the first byte that is not consumed.
    start: usize,
    /// Index after the last received byte.
    end: usize,
    /// Largest accepted frame, including prefix and end octet.
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

    /// Sets the largest accepted frame, as negotiated.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Returns the received bytes that are not consumed.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Returns the buffer for the next read, which is never empty. To be called after `next` has
    /// returned `None`.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let needed = match self.announced_size() {
            Some(size) => size.min(self.limit),
            None => FRAME_OVERHEAD_BYTES,
        };
        if self.buffer.len() < self.start + needed.max(FRAME_PREFIX_BYTES)
            || self.end == self.buffer.len()
        {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < needed {
                self.buffer
                    .resize(needed.next_multiple_of(READ_BUFFER_BYTES), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Records that a read has filled `count` bytes.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Returns the next complete frame, `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// If the bytes are not a frame, or its prefix announces more than the limit.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        let Some(size) = self.announced_size() else {
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
                "a frame of {size} bytes exceeds the limit of {}",
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

    /// Returns the size of the next frame, `None` if its prefix is incomplete.
    fn announced_size(&self) -> Option<usize> {
        let (&[_, _, _, length @ ..], _) = self.rest().split_first_chunk::<FRAME_PREFIX_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        Some(length.saturating_add(FRAME_OVERHEAD_BYTES))
    }
}
