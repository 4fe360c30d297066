//! The future that runs a connection: reads, writes, sends heartbeats.
//!
//! A single task polls it, see `rescue`. The reader dispatches every frame of one read; the tasks
//! woken by it encode into the output; the writer yields to them once before it writes. The answers
//! to one read leave in one write.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use amq_protocol::protocol::{AMQPClass, basic, channel, connection, queue};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    channel_registry::ChannelRegistry,
    channel_state::{ChannelState, Reply},
    connection_state::{ConnectionState, NextWrite},
    content::Content,
    decode::{Malformed, Method},
    encode,
    error::Error,
    frame::{Frame, FrameKind, FrameReader},
};

/// Timeout of a graceful close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to read the broker's `connection.close` after a failed write.
const CLOSE_REASON_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs a connection until it ends, then fails everything that waits on it.
///
/// `frames` holds the bytes read after the last frame of the handshake.
pub(crate) fn run(
    connection: Arc<ConnectionState>,
    channels: Arc<ChannelRegistry>,
    frames: FrameReader,
    reader: impl AsyncRead + Send,
    writer: impl AsyncWrite + Send,
) -> impl Future<Output = ()> + Send {
    // Created outside the future, for a runtime that is dropped before it polls the task.
    let guard = CloseGuard {
        connection,
        channels,
    };
    async move {
        let connection = &*guard.connection;
        let mut reading = pin!(read(connection, &guard.channels, frames, reader));
        let error = tokio::select! {
            error = &mut reading => error,
            error = write(connection, writer) => {
                // The broker may have sent its reason before it closed the socket.
                timeout(CLOSE_REASON_TIMEOUT, reading).await.unwrap_or(error)
            }
            error = shutdown_requested(connection) => error,
        };
        guard.close(&error);
    }
}

/// Closes the connection on drop, also when the task is dropped with its runtime.
struct CloseGuard {
    connection: Arc<ConnectionState>,
    channels: Arc<ChannelRegistry>,
}

impl CloseGuard {
    /// Closes the connection and its channels with `error`. Only the first error counts.
    fn close(&self, error: &Error) {
        let _home = self.connection.home.enter();
        self.connection.close_output();
        self.channels.close(error);
        self.connection.set_closed(error);
    }
}

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.close(&lost(
            &self.connection,
            "the runtime of the connection has shut down",
        ));
    }
}

/// Waits until the connection is aborted, also for lack of heartbeats, or a graceful close has run
/// into its timeout.
async fn shutdown_requested(connection: &ConnectionState) -> Error {
    tokio::select! {
        () = connection.aborted() => {}
        () = async {
            connection.close_requested().await;
            sleep(CLOSE_TIMEOUT).await;
        } => {}
    }
    connection.final_error()
}

async fn read(
    connection: &ConnectionState,
    channels: &ChannelRegistry,
    mut frames: FrameReader,
    reader: impl AsyncRead,
) -> Error {
    let mut reader = pin!(reader);
    let mut dispatcher = Dispatcher {
        connection,
        channels,
        contents: Vec::new(),
        exchange: Arc::from(""),
    };
    loop {
        match dispatcher.dispatch(&mut frames) {
            Ok(Next::Read) => {}
            Ok(Next::Closed(error)) => return error,
            // The writer ends the connection after the final frame.
            Ok(Next::FinalFrame) => return std::future::pending().await,
            Err(reason) => return protocol_error(connection, reason).await,
        }
        match reader.read(frames.spare()).await {
            Ok(0) if connection.is_closing() => return connection.closed_error(),
            Ok(0) => return lost(connection, "connection closed by peer"),
            Ok(count) => {
                connection.count_read();
                frames.filled(count);
            }
            Err(_) if connection.is_closing() => return connection.closed_error(),
            Err(error) => return lost(connection, &error.to_string()),
        }
    }
}

/// Closes the connection with a protocol error as the reason.
async fn protocol_error(connection: &ConnectionState, reason: Malformed) -> Error {
    let error = Error::Protocol {
        peer: connection.peer.clone(),
        reason,
    };
    let close = connection::AMQPMethod::Close(connection::Close {
        // 501 frame-error
        reply_code: 501,
        reply_text: "cannot read that".into(),
        class_id: 0,
        method_id: 0,
    });
    connection.close_with(close, error);
    std::future::pending().await
}

fn lost(connection: &ConnectionState, reason: &str) -> Error {
    Error::Lost {
        peer: connection.peer.clone(),
        reason: reason.to_owned(),
    }
}

async fn write(connection: &ConnectionState, writer: impl AsyncWrite) -> Error {
    let mut writer = pin!(writer);
    let mut bytes = Vec::new();
    loop {
        while !connection.has_output() {
            connection.output_ready().await;
        }
        tokio::task::yield_now().await;
        match connection.next_write(&mut bytes) {
            NextWrite::Wait => continue,
            NextWrite::Finish(error) => {
                // Best effort: the peer also sees the end of the stream.
                let _ = writer.shutdown().await;
                return error;
            }
            NextWrite::Bytes => {}
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match writer.write(rest).await {
                Ok(0) => return lost(connection, "the socket accepts no more bytes"),
                Ok(count) => {
                    connection.count_write();
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) => return lost(connection, &error.to_string()),
            }
        }
        if let Err(error) = writer.flush().await {
            return lost(connection, &error.to_string());
        }
        connection.write_finished();
    }
}

/// Sends a heartbeat if nothing else was sent for half an interval. Ends the connection if nothing
/// was received, or a write made no progress, for two intervals.
///
/// Reads and writes only increment a counter for it.
pub(crate) async fn heartbeat_loop(connection: &ConnectionState) -> Error {
    /// Ticks without progress after which the peer counts as dead. There are two per interval.
    const MAX_IDLE_TICKS: u32 = 4;

    if connection.limits.heartbeat.is_zero() {
        return std::future::pending().await;
    }
    let half_interval = connection.limits.heartbeat / 2;
    let mut ticks = interval(half_interval);
    // A suspended process must not take its own pause for silence of the peer.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut last_reads, mut silent_ticks) = (0, 0);
    let (mut last_writes, mut stuck_ticks) = (0, 0);
    loop {
        ticks.tick().await;
        let reads = connection.reads.load(Ordering::Relaxed);
        silent_ticks = if reads == last_reads {
            silent_ticks + 1
        } else {
            0
        };
        last_reads = reads;
        let writes = connection.writes.load(Ordering::Relaxed);
        let idle = writes == last_writes;
        last_writes = writes;
        // A broker that sent `connection.blocked` does not read.
        let stuck = idle && connection.is_writing() && connection.blocked().is_none();
        stuck_ticks = if stuck { stuck_ticks + 1 } else { 0 };
        if silent_ticks >= MAX_IDLE_TICKS || stuck_ticks >= MAX_IDLE_TICKS {
            return Error::HeartbeatMissed {
                peer: connection.peer.clone(),
                silent: half_interval * MAX_IDLE_TICKS,
            };
        }
        if idle && !connection.has_output() {
            connection.send(encode::heartbeat);
        }
    }
}

/// State of the reader after a frame.
enum Next {
    /// Read on.
    Read,
    /// Stop: the writer sends the final frame.
    FinalFrame,
    /// Stop: the connection is closed.
    Closed(Error),
}

/// Dispatches frames to channels, consumers and callers.
struct Dispatcher<'a> {
    connection: &'a ConnectionState,
    channels: &'a ChannelRegistry,
    /// Incomplete messages; the one of channel `n` is at index `n - 1`.
    contents: Vec<Option<Content>>,
    /// Exchange of the last message.
    exchange: Arc<str>,
}

impl Dispatcher<'_> {
    /// Dispatches all frames that are complete, in the context of the connection's runtime: sinks
    /// and callbacks spawn tasks.
    fn dispatch(&mut self, frames: &mut FrameReader) -> Result<Next, Malformed> {
        let _home = self.connection.home.enter();
        while let Some(frame) = frames.next()? {
            match self.frame(frame)? {
                Next::Read => {}
                end => return Ok(end),
            }
        }
        Ok(Next::Read)
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<Next, Malformed> {
        match frame.kind {
            FrameKind::Heartbeat => Ok(Next::Read),
            FrameKind::Method => {
                let method = Method::parse(frame.payload)?;
                if frame.channel == 0 {
                    self.connection_method(method)
                } else {
                    self.channel_method(frame.channel, method)?;
                    Ok(Next::Read)
                }
            }
            FrameKind::Header => {
                self.content(frame.channel, |content| content.header(frame.payload))
            }
            FrameKind::Body => self.content(frame.channel, |content| content.body(frame.payload)),
        }
    }

    /// Adds a header or body frame to the message of a channel and delivers it once complete.
    fn content(
        &mut self,
        id: u16,
        add: impl FnOnce(&mut Content) -> Result<bool, Malformed>,
    ) -> Result<Next, Malformed> {
        let slot = usize::from(id)
            .checked_sub(1)
            .and_then(|index| self.contents.get_mut(index));
        let Some(slot) = slot else {
            return Err(unexpected_content(id));
        };
        match slot {
            Some(content) => {
                if add(content)?
                    && let Some(complete) = slot.take()
                {
                    complete.deliver()?;
                }
                Ok(Next::Read)
            }
            None => Err(unexpected_content(id)),
        }
    }

    fn connection_method(&mut self, method: Method<'_>) -> Result<Next, Malformed> {
        let connection = self.connection;
        match method {
            Method::Other(AMQPClass::Connection(method)) => match method {
                connection::AMQPMethod::Close(close) => {
                    let error = Error::ConnectionClosed {
                        peer: connection.peer.clone(),
                        code: close.reply_code,
                        text: close.reply_text.to_string(),
                        class: close.class_id,
                        method: close.method_id,
                    };
                    connection.close_with(
                        connection::AMQPMethod::CloseOk(connection::CloseOk {}),
                        error,
                    );
                    Ok(Next::FinalFrame)
                }
                connection::AMQPMethod::CloseOk(_) => Ok(Next::Closed(connection.closed_error())),
                connection::AMQPMethod::Blocked(blocked) => {
                    tracing::warn!(
                        "{} takes no messages for now: {}",
                        connection.peer,
                        blocked.reason
                    );
                    connection.set_blocked(Some(blocked.reason.to_string()));
                    Ok(Next::Read)
                }
                connection::AMQPMethod::Unblocked(_) => {
                    tracing::info!("{} takes messages again", connection.peer);
                    connection.set_blocked(None);
                    Ok(Next::Read)
                }
                other => Err(format!("an unexpected {other:?}")),
            },
            other => Err(format!("a channel's method on channel 0: {other:?}")),
        }
    }

    fn channel_method(&mut self, id: u16, method: Method<'_>) -> Result<(), Malformed> {
        let Some(channel) = self.channels.get(id) else {
            return Err(format!("a method for channel {id}, which is not open"));
        };
        let index = usize::from(id).saturating_sub(1);
        if self.contents.len() <= index {
            self.contents.resize_with(index + 1, || None);
        }
        let Some(slot) = self.contents.get_mut(index) else {
            return Err(unexpected_content(id));
        };
        let is_close = matches!(
            method,
            Method::Other(AMQPClass::Channel(
                channel::AMQPMethod::Close(_) | channel::AMQPMethod::CloseOk(_)
            ))
        );
        if slot.is_some() && !is_close {
            return Err(format!(
                "a method in the middle of a message on channel {id}"
            ));
        }
        *slot = None;
        match Content::begin(method, &channel, &mut self.exchange) {
            Ok(content) => {
                *slot = Some(content);
                Ok(())
            }
            Err(Method::Ack { tag, multiple }) => channel.on_confirm(tag, multiple, true),
            Err(Method::Nack { tag, multiple }) => channel.on_confirm(tag, multiple, false),
            Err(Method::Other(AMQPClass::Channel(method))) => self.channel_class(&channel, method),
            Err(Method::Other(AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))) => {
                consumer_cancelled(&channel, cancel);
                Ok(())
            }
            Err(Method::Other(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)))) => {
                channel.on_consume_ok(ok.consumer_tag.as_str())
            }
            Err(Method::Other(method)) => reply(&channel, method),
            Err(other) => Err(format!("an unexpected {other:?}")),
        }
    }

    /// Handles a method of the class channel.
    fn channel_class(
        &self,
        channel: &ChannelState,
        method: channel::AMQPMethod,
    ) -> Result<(), Malformed> {
        match method {
            channel::AMQPMethod::Close(close) => {
                let error = Error::ChannelClosed {
                    peer: self.connection.peer.clone(),
                    code: close.reply_code,
                    text: close.reply_text.to_string(),
                    class: close.class_id,
                    method: close.method_id,
                };
                if channel.confirm_close() {
                    self.channels.remove(channel.id());
                }
                channel.set_closed(error);
                Ok(())
            }
            channel::AMQPMethod::CloseOk(_) if channel.writer.is_closed() => {
                self.channels.remove(channel.id());
                channel.on_close_ok();
                Ok(())
            }
            channel::AMQPMethod::CloseOk(_) => Err(format!(
                "an unexpected channel.close-ok on channel {}",
                channel.id()
            )),
            channel::AMQPMethod::Flow(flow) => {
                // RabbitMQ never sends it. Publishers are held back by the high-water mark and TCP.
                channel.send_method(AMQPClass::Channel(channel::AMQPMethod::FlowOk(
                    channel::FlowOk {
                        active: flow.active,
                    },
                )));
                Ok(())
            }
            other => reply(channel, AMQPClass::Channel(other)),
        }
    }
}

/// Handles `basic.cancel`: the broker cancels a consumer, for example as its queue was deleted.
fn consumer_cancelled(channel: &ChannelState, cancel: basic::Cancel) {
    if let Some((tag, consumer)) = channel.remove_consumer(cancel.consumer_tag.as_str()) {
        (consumer.on_cancel)(tag);
    }
    if !cancel.nowait {
        channel.send_method(AMQPClass::Basic(basic::AMQPMethod::CancelOk(
            basic::CancelOk {
                consumer_tag: cancel.consumer_tag,
            },
        )));
    }
}

/// Handles a method that replies to one of ours.
fn reply(channel: &ChannelState, method: AMQPClass) -> Result<(), Malformed> {
    let (class, number) = (method.get_amqp_class_id(), method.get_amqp_method_id());
    let reply = match method {
        AMQPClass::Basic(basic::AMQPMethod::CancelOk(ok)) => {
            channel.remove_consumer(ok.consumer_tag.as_str());
            Reply::Done
        }
        AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_)) => Reply::Got(None),
        AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) => Reply::Declared {
            name: ok.queue.into(),
            messages: ok.message_count,
            consumers: ok.consumer_count,
        },
        AMQPClass::Queue(queue::AMQPMethod::PurgeOk(ok)) => Reply::Count(ok.message_count),
        AMQPClass::Queue(queue::AMQPMethod::DeleteOk(ok)) => Reply::Count(ok.message_count),
        AMQPClass::Connection(_) => {
            return Err(format!("a connection's method on channel {}", channel.id()));
        }
        _ => Reply::Done,
    };
    channel.on_reply(class, number, reply)
}

fn unexpected_content(id: u16) -> Malformed {
    format!("content on channel {id} without a method before it")
}
