//! The task that runs a connection: reads, writes, keeps the heart beating.
//!
//! One task does it all. The reader hands out what one read brought; whoever it wakes encodes into the output; the
//! writer lets them run once before it writes, so that what one read brought is answered with one write.

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
    channel_state::{ChannelState, Reply},
    connection_state::{ConnectionState, Write},
    content::Content,
    decode::{Malformed, Method},
    encode,
    error::Error,
    frame::{Frame, FrameKind, FrameReader},
};

/// How long a polite close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to look for the broker's reason when it takes no more bytes.
const CLOSE_REASON_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the connection until it ends, and tells everybody why it did.
///
/// `frames` holds what came after the handshake's last frame.
pub(crate) fn run(
    shared: Arc<ConnectionState>,
    frames: FrameReader,
    reader: impl AsyncRead + Send,
    writer: impl AsyncWrite + Send,
) -> impl Future<Output = ()> + Send {
    // Made here and not in the future, so that it works also when the runtime ends before it polls the task.
    let ends = EndOnDrop(shared);
    async move {
        let shared = &ends.0;
        let mut reading = pin!(read(shared, frames, reader));
        let error = tokio::select! {
            error = &mut reading => error,
            error = write(shared, writer) => {
                // A broker that hangs up may have said why.
                timeout(CLOSE_REASON_TIMEOUT, reading).await.unwrap_or(error)
            }
            error = heartbeat_loop(shared) => error,
            error = shutdown_requested(shared) => error,
        };
        shared.end(&error);
    }
}

/// Ends the connection also when the task is dropped with its runtime.
struct EndOnDrop(Arc<ConnectionState>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(&Error::Lost {
            peer: self.0.peer.clone(),
            reason: "the runtime that served it has ended".to_owned(),
        });
    }
}

/// Resolves when the connection is aborted, or when a polite close has taken too long.
async fn shutdown_requested(shared: &ConnectionState) -> Error {
    tokio::select! {
        () = shared.aborted() => {}
        () = async {
            shared.close_requested().await;
            sleep(CLOSE_TIMEOUT).await;
        } => {}
    }
    shared.final_error()
}

async fn read(
    shared: &Arc<ConnectionState>,
    mut frames: FrameReader,
    reader: impl AsyncRead,
) -> Error {
    let mut reader = pin!(reader);
    let mut receiver = Receiver {
        shared,
        contents: Vec::new(),
        exchange: Arc::from(""),
    };
    loop {
        loop {
            match frames.next() {
                Ok(Some(frame)) => match receiver.frame(frame) {
                    Ok(Next::Frame) => {}
                    Ok(Next::End(error)) => return error,
                    // The writer ends the connection once it has said its last words.
                    Ok(Next::FinalFrame) => return std::future::pending().await,
                    Err(reason) => return protocol_error(shared, reason).await,
                },
                Ok(None) => break,
                Err(reason) => return protocol_error(shared, reason).await,
            }
        }
        match reader.read(frames.spare()).await {
            Ok(0) if shared.is_closing() => return shared.closed_error(),
            Ok(0) => return lost(shared, "the broker closed it without a word"),
            Ok(count) => {
                shared.note_read();
                frames.filled(count);
            }
            Err(_) if shared.is_closing() => return shared.closed_error(),
            Err(error) => return lost(shared, &error.to_string()),
        }
    }
}

/// Tells the broker why we hang up, and ends the connection.
async fn protocol_error(shared: &ConnectionState, reason: Malformed) -> Error {
    let error = Error::Protocol {
        peer: shared.peer.clone(),
        reason,
    };
    let close = connection::AMQPMethod::Close(connection::Close {
        // 501 frame-error
        reply_code: 501,
        reply_text: "cannot read that".into(),
        class_id: 0,
        method_id: 0,
    });
    shared.close_with(close, error);
    std::future::pending().await
}

fn lost(shared: &ConnectionState, reason: &str) -> Error {
    Error::Lost {
        peer: shared.peer.clone(),
        reason: reason.to_owned(),
    }
}

async fn write(shared: &ConnectionState, writer: impl AsyncWrite) -> Error {
    let mut writer = pin!(writer);
    let mut bytes = Vec::new();
    loop {
        while !shared.has_output() {
            shared.woken().await;
        }
        tokio::task::yield_now().await;
        match shared.next_write(&mut bytes) {
            Write::Nothing => continue,
            Write::End(error) => {
                // Best effort: the other side learns by the end of the stream anyway.
                let _ = writer.shutdown().await;
                return error;
            }
            Write::Bytes => {}
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match writer.write(rest).await {
                Ok(0) => return lost(shared, "it takes no more bytes"),
                Ok(count) => {
                    shared.note_write();
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) => return lost(shared, &error.to_string()),
            }
        }
        if let Err(error) = writer.flush().await {
            return lost(shared, &error.to_string());
        }
        shared.written();
    }
}

/// Sends heartbeats when nothing else was sent, and ends the connection when the peer is silent, or takes nothing, for
/// two intervals. Counting is all that reading and writing do for it.
async fn heartbeat_loop(shared: &ConnectionState) -> Error {
    /// Ticks in two intervals: one every half interval.
    const MISSED_HALF_INTERVALS: u32 = 4;

    if shared.limits.heartbeat.is_zero() {
        return std::future::pending().await;
    }
    let half = shared.limits.heartbeat / 2;
    let mut ticks = interval(half);
    // A process that was stopped for a while must not take its own silence for the peer's.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut reads, mut silent) = (0, 0);
    let (mut writes, mut stuck) = (0, 0);
    loop {
        ticks.tick().await;
        let now = shared.reads.load(Ordering::Relaxed);
        silent = if now == reads { silent + 1 } else { 0 };
        reads = now;
        let now = shared.writes.load(Ordering::Relaxed);
        let idle = now == writes;
        writes = now;
        // A blocked broker reads nothing, and says so.
        let waiting = idle && shared.is_writing() && !shared.blocked.load(Ordering::Relaxed);
        stuck = if waiting { stuck + 1 } else { 0 };
        if silent >= MISSED_HALF_INTERVALS || stuck >= MISSED_HALF_INTERVALS {
            return Error::HeartbeatMissed {
                peer: shared.peer.clone(),
                silent: half * MISSED_HALF_INTERVALS,
            };
        }
        if idle && !shared.has_output() {
            shared.send(encode::heartbeat);
        }
    }
}

/// What to do after a frame.
enum Next {
    Frame,
    FinalFrame,
    End(Error),
}

struct Receiver<'a> {
    shared: &'a Arc<ConnectionState>,
    /// Messages that are not whole yet; that of channel `n` is at `n - 1`.
    contents: Vec<Option<Content>>,
    /// The exchange of the last message.
    exchange: Arc<str>,
}

impl Receiver<'_> {
    fn frame(&mut self, frame: Frame<'_>) -> Result<Next, Malformed> {
        match frame.kind {
            FrameKind::Heartbeat => Ok(Next::Frame),
            FrameKind::Method => {
                let method = Method::parse(frame.payload)?;
                if frame.channel == 0 {
                    self.connection_method(method)
                } else {
                    self.channel_method(frame.channel, method)?;
                    Ok(Next::Frame)
                }
            }
            FrameKind::Header => {
                self.content(frame.channel, |content| content.header(frame.payload))
            }
            FrameKind::Body => self.content(frame.channel, |content| content.body(frame.payload)),
        }
    }

    fn content(
        &mut self,
        id: u16,
        take: impl FnOnce(&mut Content) -> Result<bool, Malformed>,
    ) -> Result<Next, Malformed> {
        let slot = usize::from(id)
            .checked_sub(1)
            .and_then(|at| self.contents.get_mut(at));
        let Some(content) = slot else {
            return Err(unexpected_content(id));
        };
        match content {
            Some(unfinished) => {
                if take(unfinished)?
                    && let Some(whole) = content.take()
                {
                    whole.finish()?;
                }
                Ok(Next::Frame)
            }
            None => Err(unexpected_content(id)),
        }
    }

    fn connection_method(&mut self, method: Method<'_>) -> Result<Next, Malformed> {
        let shared = self.shared;
        match method {
            Method::Other(AMQPClass::Connection(method)) => match method {
                connection::AMQPMethod::Close(close) => {
                    let error = Error::ConnectionClosed {
                        peer: shared.peer.clone(),
                        code: close.reply_code,
                        text: close.reply_text.to_string(),
                        class: close.class_id,
                        method: close.method_id,
                    };
                    shared.close_with(
                        connection::AMQPMethod::CloseOk(connection::CloseOk {}),
                        error,
                    );
                    Ok(Next::FinalFrame)
                }
                connection::AMQPMethod::CloseOk(_) => Ok(Next::End(shared.closed_error())),
                connection::AMQPMethod::Blocked(blocked) => {
                    tracing::warn!(
                        "{} takes no messages for now: {}",
                        shared.peer,
                        blocked.reason
                    );
                    shared.blocked.store(true, Ordering::Relaxed);
                    Ok(Next::Frame)
                }
                connection::AMQPMethod::Unblocked(_) => {
                    tracing::info!("{} takes messages again", shared.peer);
                    shared.blocked.store(false, Ordering::Relaxed);
                    Ok(Next::Frame)
                }
                other => Err(format!("an unexpected {other:?}")),
            },
            other => Err(format!("a channel's method on channel 0: {other:?}")),
        }
    }

    fn channel_method(&mut self, id: u16, method: Method<'_>) -> Result<(), Malformed> {
        let Some(channel) = self.shared.channel(id) else {
            return Err(format!("a method for channel {id}, which is not open"));
        };
        let at = usize::from(id).saturating_sub(1);
        if self.contents.len() <= at {
            self.contents.resize_with(at + 1, || None);
        }
        let Some(slot) = self.contents.get_mut(at) else {
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
            Err(Method::Ack { tag, multiple }) => channel.confirmed(tag, multiple, true),
            Err(Method::Nack { tag, multiple }) => channel.confirmed(tag, multiple, false),
            Err(Method::Other(method)) => self.other(&channel, method),
            Err(other) => Err(format!("an unexpected {other:?}")),
        }
    }

    fn other(&self, channel: &Arc<ChannelState>, method: AMQPClass) -> Result<(), Malformed> {
        let (class, number) = (method.get_amqp_class_id(), method.get_amqp_method_id());
        let reply = match method {
            AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
                channel.closed_by_broker(Error::ChannelClosed {
                    peer: self.shared.peer.clone(),
                    code: close.reply_code,
                    text: close.reply_text.to_string(),
                    class: close.class_id,
                    method: close.method_id,
                });
                return Ok(());
            }
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)) => return channel.close_ok(),
            AMQPClass::Channel(channel::AMQPMethod::Flow(flow)) => {
                // RabbitMQ never sends it; the output's high-water mark and TCP hold publishers back.
                channel.send_method(AMQPClass::Channel(channel::AMQPMethod::FlowOk(
                    channel::FlowOk {
                        active: flow.active,
                    },
                )));
                return Ok(());
            }
            AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)) => {
                let tag = cancel.consumer_tag.as_str();
                if let Some((tag, consumer)) = channel.remove_consumer(tag) {
                    (consumer.on_cancel)(tag);
                }
                if !cancel.nowait {
                    channel.send_method(AMQPClass::Basic(basic::AMQPMethod::CancelOk(
                        basic::CancelOk {
                            consumer_tag: cancel.consumer_tag,
                        },
                    )));
                }
                return Ok(());
            }
            AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)) => {
                return channel.consuming(ok.consumer_tag.as_str());
            }
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
                return Err(format!("a connection's method on channel {}", channel.id));
            }
            _ => Reply::Done,
        };
        channel.replied(class, number, reply)
    }
}

fn unexpected_content(id: u16) -> Malformed {
    format!("content on channel {id} that no message began")
}
