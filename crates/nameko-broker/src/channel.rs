//! Protocol state of a channel: open, method and content frames, close.

use amq_protocol::protocol::{AMQPClass, basic, channel as protocol};
use bytes::Bytes;

use crate::{
    error::{AmqpError, Code, Result},
    frame::{ContentHeader, parse_header, parse_method},
    ids::{ChannelId, ConnectionId},
    name::Name,
    send_buffer::SendBuffer,
    vhost::VHost,
};

/// Class and method of `basic.publish`.
pub(crate) const PUBLISH: (u16, u16) = (60, 40);

/// Maximum memory reserved for a body in advance, so that an announced size costs nothing.
const MAX_INITIAL_RESERVE_BYTES: u64 = 64 << 10;

/// Parts of the connection that a channel uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelContext<'a> {
    pub(crate) vhost: &'a VHost,
    pub(crate) send_buffer: &'a SendBuffer,
    pub(crate) connection: ConnectionId,
    pub(crate) user: &'a str,
    /// Maximum size of a message body, in bytes.
    pub(crate) max_message_size: u64,
}

/// An open or closing channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    /// Key of the channel's consumers in the virtual host.
    pub(crate) id: ChannelId,
    /// Closed by the server, awaiting `channel.close-ok`. All other frames are ignored.
    pub(crate) closing: bool,
    /// The queue most recently declared on this channel, which an empty queue name stands for.
    pub(crate) last_queue: Option<Name>,
    pub(crate) mode: ChannelMode,
    expected: ExpectedFrame,
}

/// The frame that the protocol allows next.
#[derive(Debug)]
enum ExpectedFrame {
    Method,
    Header(basic::Publish),
    Body(Box<PublishAssembly>),
}

/// A `basic.publish`, assembled from its method, header and body frames.
#[derive(Debug)]
pub(crate) struct PublishAssembly {
    pub(crate) method: basic::Publish,
    pub(crate) header: ContentHeader,
    /// Payload of the header frame.
    pub(crate) raw_header: Bytes,
    pub(crate) body: Bytes,
    /// Body frames received so far, if there is more than one.
    parts: Vec<u8>,
}

/// How the outcome of publishes is reported, for the rest of the channel's life.
#[derive(Debug)]
pub(crate) enum ChannelMode {
    Normal,
    /// After `confirm.select`.
    Confirm(Confirms),
    /// After `tx.select`; the transaction is held by the virtual host.
    Transaction,
}

/// State of publisher confirms.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    /// Sequence number of the last published message.
    pub(crate) last_published: u64,
    /// Sequence number up to which confirms were sent.
    pub(crate) last_confirmed: u64,
}

/// Outcome of a frame.
#[derive(Debug)]
pub(crate) enum Event {
    /// Processed by the channel; nothing left to do.
    Handled,
    /// A method to be dispatched.
    Method(AMQPClass),
    /// A complete message to be published.
    Publish(Box<PublishAssembly>),
}

impl Channel {
    pub(crate) fn new(number: u16, id: ChannelId) -> Self {
        Self {
            number,
            id,
            closing: false,
            last_queue: None,
            mode: ChannelMode::Normal,
            expected: ExpectedFrame::Method,
        }
    }

    /// Processes a method frame.
    pub(crate) fn on_method(&mut self, payload: &[u8]) -> Result<Event> {
        match &self.expected {
            ExpectedFrame::Method => {}
            ExpectedFrame::Header(_) => {
                return Err(AmqpError::unexpected_frame(
                    "expected content header for class 60, got non content header frame instead",
                )
                .in_method(PUBLISH));
            }
            ExpectedFrame::Body(_) => {
                return Err(AmqpError::unexpected_frame(
                    "expected content body, got non content body frame instead",
                )
                .in_method(PUBLISH));
            }
        }
        match parse_method(payload)? {
            AMQPClass::Basic(basic::AMQPMethod::Publish(publish)) => {
                self.expected = ExpectedFrame::Header(publish);
                Ok(Event::Handled)
            }
            method => Ok(Event::Method(method)),
        }
    }

    /// Processes a content header frame.
    pub(crate) fn on_header(&mut self, payload: &[u8], max_message_size: u64) -> Result<Event> {
        let method = match std::mem::replace(&mut self.expected, ExpectedFrame::Method) {
            ExpectedFrame::Header(method) => method,
            other => return Err(unexpected_content(&other)),
        };
        let header = parse_header(payload).map_err(|e| e.in_method(PUBLISH))?;
        if header.class_id != PUBLISH.0 {
            return Err(AmqpError::unexpected_frame(format!(
                "expected content header for class 60, got one for class {} instead",
                header.class_id
            ))
            .in_method(PUBLISH));
        }
        // RabbitMQ receives the whole body before it refuses it. The outcome is the same, without
        // the memory use.
        if header.body_size > max_message_size {
            return Err(AmqpError::precondition_failed(format!(
                "message size {} is larger than configured max size {max_message_size}",
                header.body_size
            ))
            .in_method(PUBLISH));
        }
        let empty = header.body_size == 0;
        let publishing = Box::new(PublishAssembly {
            method,
            header,
            raw_header: Bytes::copy_from_slice(payload),
            body: Bytes::new(),
            parts: Vec::new(),
        });
        if empty {
            return Ok(Event::Publish(publishing));
        }
        self.expected = ExpectedFrame::Body(publishing);
        Ok(Event::Handled)
    }

    /// Processes a content body frame.
    pub(crate) fn on_body(&mut self, payload: &[u8]) -> Result<Event> {
        let mut publishing = match std::mem::replace(&mut self.expected, ExpectedFrame::Method) {
            ExpectedFrame::Body(publishing) => publishing,
            other => return Err(unexpected_content(&other)),
        };
        let size = publishing.header.body_size;
        let received = publishing.parts.len() as u64 + payload.len() as u64;
        if received > size {
            return Err(AmqpError::new(
                Code::FrameError,
                format!("content body of {size} octets announced, {received} received"),
            )
            .in_method(PUBLISH));
        }
        if received == size {
            publishing.body = if publishing.parts.is_empty() {
                Bytes::copy_from_slice(payload)
            } else {
                publishing.parts.extend_from_slice(payload);
                std::mem::take(&mut publishing.parts).into()
            };
            return Ok(Event::Publish(publishing));
        }
        if publishing.parts.is_empty() {
            publishing
                .parts
                .reserve(size.min(MAX_INITIAL_RESERVE_BYTES) as usize);
        }
        publishing.parts.extend_from_slice(payload);
        self.expected = ExpectedFrame::Body(publishing);
        Ok(Event::Handled)
    }

    /// Returns the number of bytes buffered of an incomplete body.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        match &self.expected {
            ExpectedFrame::Body(publishing) => publishing.parts.len() as u64,
            _ => 0,
        }
    }

    /// Closes the channel from the server's side and awaits `channel.close-ok`.
    pub(crate) fn close(&mut self, context: &ChannelContext<'_>, error: &AmqpError) {
        self.flush_confirms(context);
        context.vhost.lock().close_channel(self.id);
        self.closing = true;
        self.expected = ExpectedFrame::Method;
        let close = protocol::Close {
            reply_code: error.code.id(),
            reply_text: error.reply_text(),
            class_id: error.method.0,
            method_id: error.method.1,
        };
        context.send_buffer.method(
            self.number,
            AMQPClass::Channel(protocol::AMQPMethod::Close(close)),
        );
    }

    /// Sends all pending confirms as one.
    pub(crate) fn flush_confirms(&mut self, context: &ChannelContext<'_>) {
        let ChannelMode::Confirm(confirms) = &mut self.mode else {
            return;
        };
        if confirms.last_confirmed == confirms.last_published {
            return;
        }
        let ack = basic::Ack {
            delivery_tag: confirms.last_published,
            multiple: confirms.last_published - confirms.last_confirmed > 1,
        };
        confirms.last_confirmed = confirms.last_published;
        context
            .send_buffer
            .method(self.number, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
    }
}

fn unexpected_content(expected: &ExpectedFrame) -> AmqpError {
    match expected {
        ExpectedFrame::Method => {
            AmqpError::unexpected_frame("expected method frame, got non method frame instead")
        }
        ExpectedFrame::Header(_) => AmqpError::unexpected_frame(
            "expected content header for class 60, got non content header frame instead",
        )
        .in_method(PUBLISH),
        ExpectedFrame::Body(_) => {
            AmqpError::unexpected_frame("expected content body, got non content body frame instead")
                .in_method(PUBLISH)
        }
    }
}
