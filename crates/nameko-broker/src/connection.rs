//! Protocol state of a connection: the handshake, then dispatch of frames to channels. Performs no
//! I/O.

use std::{collections::HashMap, sync::Arc, time::Duration};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, channel as channel_protocol, connection as protocol},
    types::FieldTable,
};
use bytes::{Buf, BytesMut};

use crate::{
    auth::ExternalLogin,
    broker_state::BrokerState,
    channel::{Channel, ChannelContext, ChannelMode, Event},
    error::{AmqpError, Code, Result},
    frame::{Frame, FrameKind, describe_frame, method_id, next_frame, parse_method},
    send_buffer::SendBuffer,
    vhost::VHost,
};

/// Frame size limit during the handshake, and the smallest value that may be negotiated.
pub(crate) const INITIAL_FRAME_MAX: usize = 4096;

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Awaiting the protocol header.
    Greeting,
    /// Awaiting `connection.start-ok`.
    Starting,
    /// Awaiting `connection.tune-ok`.
    Tuning,
    /// Awaiting `connection.open`.
    Opening,
    Running,
    /// Closed by the server, awaiting `connection.close-ok`.
    Closing,
    /// Over as soon as the send buffer is flushed.
    Closed,
}

/// A client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) broker: Arc<BrokerState>,
    pub(crate) send_buffer: Arc<SendBuffer>,
    pub(crate) phase: Phase,
    /// The client is connected over TLS.
    pub(crate) tls: bool,
    /// Set if EXTERNAL is offered.
    pub(crate) external: Option<ExternalLogin>,
    pub(crate) user: String,
    /// SASL mechanism; moved into the [`VHostSession`](crate::connection_info::VHostSession).
    pub(crate) mechanism: String,
    /// Properties from `connection.start-ok`; moved into the `VHostSession`.
    pub(crate) client_properties: FieldTable,
    pub(crate) vhost: Option<Arc<VHost>>,
    channels: HashMap<u16, Channel>,
    /// The client has the capability `consumer_cancel_notify`.
    pub(crate) cancel_notify: bool,
    /// The client has the capability `authentication_failure_close`: it expects `connection.close`
    /// after a failed login.
    pub(crate) auth_failure_close: bool,
    pub(crate) frame_max: usize,
    pub(crate) channel_max: u16,
    pub(crate) heartbeat: Duration,
    /// Channels with confirms to flush after the current batch; may contain duplicates.
    pending_confirms: Vec<u16>,
}

impl Connection {
    pub(crate) fn new(broker: Arc<BrokerState>, send_buffer: Arc<SendBuffer>) -> Self {
        send_buffer.set_frame_max(INITIAL_FRAME_MAX);
        Self {
            broker,
            send_buffer,
            phase: Phase::Greeting,
            tls: false,
            external: None,
            user: String::new(),
            mechanism: String::new(),
            client_properties: FieldTable::default(),
            vhost: None,
            channels: HashMap::new(),
            cancel_notify: false,
            auth_failure_close: false,
            frame_max: INITIAL_FRAME_MAX,
            channel_max: 0,
            heartbeat: Duration::ZERO,
            pending_confirms: Vec::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the negotiated heartbeat interval; zero disables heartbeats.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Processes complete frames until the send buffer is above its high-water mark. `bytes` keeps
    /// an incomplete or unprocessed rest.
    ///
    /// Returns whether anything was processed.
    pub(crate) fn receive(&mut self, bytes: &mut BytesMut) -> bool {
        let mut used = 0;
        while self.phase != Phase::Closed && self.send_buffer.accepts_input() {
            let rest = bytes.get(used..).unwrap_or_default();
            let step = match self.phase {
                Phase::Greeting => self.on_protocol_header(rest),
                _ => next_frame(rest, self.frame_max).map(|found| {
                    found.map(|(frame, size)| {
                        self.on_frame(frame);
                        size
                    })
                }),
            };
            match step {
                Ok(Some(size)) => used += size,
                Ok(None) => break,
                Err(error) => {
                    // The start of the next frame is unknown.
                    self.fail(&error);
                    self.phase = Phase::Closed;
                }
            }
        }
        bytes.advance(used);
        self.flush_confirms();
        if let Some(vhost) = &self.vhost {
            vhost.wake_others(Some(self.send_buffer.connection));
        }
        used > 0
    }

    /// Resumes deliveries that were paused while the send buffer was full.
    pub(crate) fn resume_deliveries(&mut self) {
        let Some(vhost) = &self.vhost else {
            return;
        };
        {
            let mut state = vhost.lock();
            for channel in self.channels.values() {
                state.deliver_to_channel(channel.id);
            }
        }
        vhost.wake_others(Some(self.send_buffer.connection));
    }

    /// Closes the connection from the server's side.
    pub(crate) fn force_close(&mut self, reason: &str) {
        match self.phase {
            Phase::Closing | Phase::Closed => {}
            Phase::Greeting | Phase::Starting => self.finish(Phase::Closed),
            _ => self.close(&AmqpError::new(Code::ConnectionForced, reason)),
        }
    }

    /// Releases everything that the connection holds in its virtual host. Idempotent.
    pub(crate) fn finish(&mut self, phase: Phase) {
        self.phase = phase;
        self.pending_confirms.clear();
        let channels = std::mem::take(&mut self.channels);
        let Some(vhost) = self.vhost.take() else {
            return;
        };
        {
            let mut state = vhost.lock();
            for channel in channels.into_values() {
                state.close_channel(channel.id);
            }
            state.delete_exclusive(self.send_buffer.connection);
        }
        vhost.wake_others(Some(self.send_buffer.connection));
        self.broker.leave_vhost(self.send_buffer.connection);
    }

    fn on_frame(&mut self, frame: Frame<'_>) {
        let result = match (frame.channel, frame.kind) {
            (0, FrameKind::Heartbeat) => Ok(()),
            (0, FrameKind::Method) => parse_method(frame.payload)
                .and_then(|method| self.on_connection_method(method))
                .map_err(|e| e.in_method(method_id(frame.payload))),
            _ if self.phase == Phase::Closing => Ok(()),
            (0, _) | (_, FrameKind::Heartbeat) => Err(unexpected(&frame)),
            _ if self.phase == Phase::Running => return self.on_channel_frame(frame),
            _ => Err(unexpected(&frame)),
        };
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    /// Processes a method on channel 0.
    fn on_connection_method(&mut self, method: AMQPClass) -> Result<()> {
        use protocol::AMQPMethod as Method;
        match (self.phase, method) {
            (Phase::Closing, AMQPClass::Connection(Method::CloseOk(_))) => {
                self.phase = Phase::Closed
            }
            (Phase::Closing, AMQPClass::Connection(Method::Close(_))) => {
                self.send(Method::CloseOk(protocol::CloseOk {}))
            }
            (Phase::Closing | Phase::Closed, _) => {}
            (Phase::Starting, AMQPClass::Connection(Method::StartOk(ok))) => {
                self.on_start_ok(&ok)?
            }
            (Phase::Tuning, AMQPClass::Connection(Method::TuneOk(ok))) => self.on_tune_ok(&ok)?,
            (Phase::Opening, AMQPClass::Connection(Method::Open(open))) => {
                self.on_open(open.virtual_host.as_str())?
            }
            (Phase::Running, AMQPClass::Connection(Method::Close(_))) => {
                self.finish(Phase::Closed);
                self.send(Method::CloseOk(protocol::CloseOk {}));
            }
            (Phase::Running, AMQPClass::Connection(Method::UpdateSecret(_))) => {
                self.send(Method::UpdateSecretOk(protocol::UpdateSecretOk {}));
            }
            (phase, _) => {
                let state = format!("{phase:?}").to_lowercase();
                return Err(AmqpError::new(
                    Code::ChannelError,
                    format!("unexpected method in connection state {state}"),
                ));
            }
        }
        Ok(())
    }

    fn on_channel_frame(&mut self, frame: Frame<'_>) {
        let Some(vhost) = self.vhost.clone() else {
            return;
        };
        let send_buffer = self.send_buffer.clone();
        let user = std::mem::take(&mut self.user);
        let context = ChannelContext {
            vhost: &vhost,
            send_buffer: &send_buffer,
            connection: send_buffer.connection,
            user: &user,
            max_message_size: self.broker.settings.max_message_size,
        };
        let result = self.try_channel_frame(&context, frame);
        if let Err(error) = result {
            let error = match frame.kind {
                FrameKind::Method => error.in_method(method_id(frame.payload)),
                _ => error,
            };
            match self.channels.get_mut(&frame.channel) {
                Some(channel) if !error.code.closes_connection() => {
                    tracing::debug!(channel = frame.channel, error = %error.reply_text(), "channel closed");
                    channel.close(&context, &error);
                }
                _ => self.fail(&error),
            }
        }
        self.user = user;
    }

    fn try_channel_frame(&mut self, context: &ChannelContext<'_>, frame: Frame<'_>) -> Result<()> {
        let number = frame.channel;
        let Some(channel) = self.channels.get_mut(&number) else {
            return self.open_channel(context, frame);
        };
        if channel.closing {
            return self.closing_channel(context, frame);
        }
        let event = match frame.kind {
            FrameKind::Method => channel.on_method(frame.payload)?,
            FrameKind::Header => channel.on_header(frame.payload, context.max_message_size)?,
            FrameKind::Body => channel.on_body(frame.payload)?,
            FrameKind::Heartbeat => return Err(unexpected(&frame)),
        };
        let incomplete = channel.buffered_bytes() > 0 && frame.kind == FrameKind::Body;
        if incomplete && self.buffered_body_bytes() > context.max_message_size.saturating_mul(2) {
            return Err(AmqpError::new(
                Code::ResourceError,
                "incomplete messages on this connection exceed twice the maximum message size",
            ));
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(());
        };
        match event {
            Event::Handled => Ok(()),
            Event::Publish(publishing) => {
                channel.publish(context, *publishing)?;
                if matches!(channel.mode, ChannelMode::Confirm(_))
                    && self.pending_confirms.last() != Some(&number)
                {
                    self.pending_confirms.push(number);
                }
                Ok(())
            }
            Event::Method(AMQPClass::Channel(channel_protocol::AMQPMethod::Close(_))) => {
                channel.flush_confirms(context);
                context.vhost.lock().close_channel(channel.id);
                self.channels.remove(&number);
                let ok = channel_protocol::AMQPMethod::CloseOk(channel_protocol::CloseOk {});
                context.send_buffer.method(number, AMQPClass::Channel(ok));
                Ok(())
            }
            Event::Method(method) => channel.dispatch(context, method),
        }
    }

    /// Returns the number of bytes buffered of incomplete bodies on all channels. Each body is
    /// within its limit, but a connection may have many channels.
    fn buffered_body_bytes(&self) -> u64 {
        self.channels.values().map(Channel::buffered_bytes).sum()
    }

    /// Opens a channel; the first frame on a channel must be `channel.open`.
    fn open_channel(&mut self, context: &ChannelContext<'_>, frame: Frame<'_>) -> Result<()> {
        let open = self.channels.len();
        if self.channel_max != 0 && open >= self.channel_max.into() {
            return Err(AmqpError::not_allowed(format!(
                "number of channels opened ({open}) has reached the negotiated channel_max ({})",
                self.channel_max
            )));
        }
        if frame.kind != FrameKind::Method {
            return Err(AmqpError::unexpected_frame(
                "expected method frame, got non method frame instead",
            ));
        }
        match parse_method(frame.payload)? {
            AMQPClass::Channel(channel_protocol::AMQPMethod::Open(_)) => {}
            _ => {
                return Err(AmqpError::new(
                    Code::ChannelError,
                    "expected 'channel.open'",
                ));
            }
        }
        let id = context.vhost.lock().open_channel(
            frame.channel,
            self.send_buffer.clone(),
            self.cancel_notify,
        );
        self.channels
            .insert(frame.channel, Channel::new(frame.channel, id));
        let ok = channel_protocol::AMQPMethod::OpenOk(channel_protocol::OpenOk {});
        context
            .send_buffer
            .method(frame.channel, AMQPClass::Channel(ok));
        Ok(())
    }

    /// Processes a frame on a channel that the server closed: all are ignored except the close
    /// handshake.
    fn closing_channel(&mut self, context: &ChannelContext<'_>, frame: Frame<'_>) -> Result<()> {
        if frame.kind != FrameKind::Method {
            return Ok(());
        }
        match method_id(frame.payload) {
            (20, 41) => {
                self.channels.remove(&frame.channel);
            }
            (20, 40) => {
                let ok = channel_protocol::AMQPMethod::CloseOk(channel_protocol::CloseOk {});
                context
                    .send_buffer
                    .method(frame.channel, AMQPClass::Channel(ok));
            }
            _ => {}
        }
        Ok(())
    }

    /// Closes the connection after an error. During the handshake, `connection.close` is sent only
    /// in the states in which RabbitMQ sends it.
    pub(crate) fn fail(&mut self, error: &AmqpError) {
        tracing::debug!(error = %error.reply_text(), phase = ?self.phase, "connection closed");
        let send_close = match self.phase {
            Phase::Greeting | Phase::Closing | Phase::Closed => false,
            Phase::Starting => self.auth_failure_close && error.code == Code::AccessRefused,
            Phase::Tuning => error.code == Code::NotAllowed,
            Phase::Opening | Phase::Running => true,
        };
        if send_close {
            self.close(error);
        } else {
            self.finish(Phase::Closed);
        }
    }

    fn close(&mut self, error: &AmqpError) {
        self.flush_confirms();
        self.finish(Phase::Closing);
        self.send(protocol::AMQPMethod::Close(protocol::Close {
            reply_code: error.code.id(),
            reply_text: error.reply_text(),
            class_id: error.method.0,
            method_id: error.method.1,
        }));
    }

    fn flush_confirms(&mut self) {
        let Some(vhost) = &self.vhost else {
            return;
        };
        let context = ChannelContext {
            vhost,
            send_buffer: &self.send_buffer,
            connection: self.send_buffer.connection,
            user: &self.user,
            max_message_size: 0,
        };
        for number in self.pending_confirms.drain(..) {
            if let Some(channel) = self.channels.get_mut(&number) {
                channel.flush_confirms(&context);
            }
        }
    }

    pub(crate) fn send(&self, method: protocol::AMQPMethod) {
        self.send_buffer.method(0, AMQPClass::Connection(method));
    }

    /// Queues a heartbeat frame.
    pub(crate) fn send_heartbeat(&self) {
        self.send_buffer
            .write(|buffer| buffer.frame(&AMQPFrame::Heartbeat));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.finish(Phase::Closed);
    }
}

fn unexpected(frame: &Frame<'_>) -> AmqpError {
    let kind = match frame.kind {
        FrameKind::Method => 1,
        FrameKind::Header => 2,
        FrameKind::Body => 3,
        FrameKind::Heartbeat => 8,
    };
    AmqpError::unexpected_frame(describe_frame(kind, frame.payload))
}
