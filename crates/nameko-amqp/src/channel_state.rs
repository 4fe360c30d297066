//! State of a channel, shared by its handles and the connection's reader.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use amq_protocol::protocol::{AMQPClass, basic, channel};
use tokio::sync::{oneshot, watch};

use crate::{
    channel_writer::ChannelWriter,
    confirms::{Completion, Confirms, Outcome, Route},
    connection_state::ConnectionState,
    delivery::{ConsumerTag, Delivery, Sink},
    encode,
    error::{Error, PublishError},
    message::Publish,
    sync::lock,
};

/// State of one channel.
pub(crate) struct ChannelState {
    pub(crate) writer: Arc<ChannelWriter>,
    inner: Mutex<Inner>,
    closed: watch::Sender<Option<Error>>,
}

#[derive(Default)]
struct Inner {
    /// Error that ended the channel; no request is accepted after it.
    closed: Option<Error>,
    /// Requests in flight, oldest first. The broker replies in the order of the requests.
    requests: VecDeque<Request>,
    consumers: BTreeMap<ConsumerTag, Consumer>,
    /// Number of consumers created so far, for unique tags.
    consumer_count: u64,
    /// Unconfirmed messages, in confirm mode.
    confirms: Option<Confirms>,
}

type ReplyReceiver = oneshot::Receiver<Result<Reply, Error>>;

/// A method in flight.
struct Request {
    /// Class id of the method and of its reply.
    class: u16,
    /// Method id of the reply.
    reply_method: u16,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

/// Reply to a method.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A reply without content.
    Done,
    /// `queue.declare-ok`.
    Declared {
        name: String,
        messages: u32,
        consumers: u32,
    },
    /// Number of messages purged or deleted.
    Count(u32),
    /// `basic.get-ok` with its message, or `basic.get-empty`.
    Got(Option<Box<Delivery>>),
}

/// A consumer of a channel.
pub(crate) struct Consumer {
    pub(crate) sink: Sink,
    /// Called if the broker cancels the consumer.
    pub(crate) on_cancel: Box<dyn FnOnce(ConsumerTag) + Send>,
}

impl ChannelState {
    pub(crate) fn new(id: u16, connection: Arc<ConnectionState>) -> Self {
        Self {
            writer: Arc::new(ChannelWriter::new(id, connection)),
            inner: Mutex::default(),
            closed: watch::Sender::new(None),
        }
    }

    pub(crate) fn id(&self) -> u16 {
        self.writer.id
    }

    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        &self.writer.connection
    }

    /// Sends `method` and waits for the reply with method id `reply_method`.
    pub(crate) async fn call(&self, method: AMQPClass, reply_method: u16) -> Result<Reply, Error> {
        let reply = self.request_then(method, reply_method, |_| ())?;
        self.wait_for_reply(reply).await
    }

    pub(crate) async fn wait_for_reply(&self, reply: ReplyReceiver) -> Result<Reply, Error> {
        // The sender is dropped unused only together with the channel's state.
        reply.await.unwrap_or_else(|_| Err(self.close_reason()))
    }

    /// Sends `method` and calls `then` under the same lock.
    fn request_then(
        &self,
        method: AMQPClass,
        reply_method: u16,
        then: impl FnOnce(&mut Inner),
    ) -> Result<ReplyReceiver, Error> {
        let class = method.get_amqp_class_id();
        let mut encoded = Vec::new();
        encode::method(&mut encoded, self.id(), method)?;
        let frame_max = self.connection().limits.frame_max;
        if encoded.len() > frame_max {
            return Err(Error::Unsendable {
                reason: format!(
                    "arguments of {} bytes exceed the broker's limit of {frame_max}",
                    encoded.len(),
                ),
            });
        }
        let mut inner = lock(&self.inner);
        inner.check_open()?;
        let (reply, receiver) = oneshot::channel();
        inner.requests.push_back(Request {
            class,
            reply_method,
            reply,
        });
        if !self.writer.send(|out| out.extend_from_slice(&encoded)) {
            inner.requests.pop_back();
            return Err(self.close_reason());
        }
        then(&mut inner);
        Ok(receiver)
    }

    /// Adds a consumer and returns its tag, which is unique on the connection.
    pub(crate) fn add_consumer(&self, consumer: Consumer) -> Result<ConsumerTag, Error> {
        let mut inner = lock(&self.inner);
        inner.check_open()?;
        inner.consumer_count += 1;
        let tag = ConsumerTag::from(format!("c{}.{}", self.id(), inner.consumer_count));
        inner.consumers.insert(Arc::clone(&tag), consumer);
        Ok(tag)
    }

    pub(crate) fn remove_consumer(&self, tag: &str) -> Option<(ConsumerTag, Consumer)> {
        lock(&self.inner).consumers.remove_entry(tag)
    }

    /// Returns the tag and sink of a consumer.
    pub(crate) fn consumer(&self, tag: &str) -> Option<(ConsumerTag, Sink)> {
        let inner = lock(&self.inner);
        let (tag, consumer) = inner.consumers.get_key_value(tag)?;
        Some((Arc::clone(tag), Arc::clone(&consumer.sink)))
    }

    /// Returns whether the channel is in confirm mode.
    pub(crate) fn is_confirming(&self) -> bool {
        lock(&self.inner).confirms.is_some()
    }

    /// Sends `confirm.select` and counts every publish after it, as the broker does.
    pub(crate) async fn select_confirms(&self, select: AMQPClass) -> Result<(), Error> {
        let reply = self.request_then(select, 11, |inner| {
            inner.confirms.get_or_insert_with(Confirms::new);
        })?;
        self.wait_for_reply(reply).await.map(drop)
    }

    /// Returns whether no publish waits for its confirm.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.inner)
            .confirms
            .as_ref()
            .is_none_or(Confirms::is_empty)
    }

    /// Encodes a message without flushing it. `callback` is called on the I/O task with the
    /// outcome.
    ///
    /// Gives both back if the channel is closed or not in confirm mode, or if the message cannot be
    /// encoded.
    pub(crate) fn try_publish<F>(
        &self,
        message: Publish,
        callback: F,
    ) -> Result<(), Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        // The broker numbers messages in the order of their arrival, so the lock spans the
        // encoding.
        let mut inner = lock(&self.inner);
        let Some(confirms) = &mut inner.confirms else {
            return Err(Box::new((message, callback)));
        };
        let mut encoded = Ok(());
        let frame_max = self.connection().limits.frame_max;
        let sent = self
            .writer
            .buffer(|out| encoded = encode::publish(out, self.id(), &message, frame_max));
        if !sent || encoded.is_err() {
            return Err(Box::new((message, callback)));
        }
        confirms.add_with_callback(message, callback);
        Ok(())
    }

    /// Sends a message. Returns the receiver of its outcome in confirm mode.
    pub(crate) fn publish(
        &self,
        message: &Publish,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Error> {
        // The broker numbers messages in the order of their arrival, so the lock spans the
        // encoding.
        let mut inner = lock(&self.inner);
        inner.check_open()?;
        let receiver = inner
            .confirms
            .as_mut()
            .map(|confirms| confirms.add(message));
        let mut encoded = Ok(());
        let frame_max = self.connection().limits.frame_max;
        let sent = self
            .writer
            .send(|out| encoded = encode::publish(out, self.id(), message, frame_max));
        if !sent || encoded.is_err() {
            if let Some(confirms) = &mut inner.confirms {
                confirms.undo_add();
            }
            encoded?;
            return Err(self.close_reason());
        }
        Ok(receiver)
    }

    /// Handles `basic.ack` and `basic.nack`.
    pub(crate) fn on_confirm(&self, tag: u64, multiple: bool, ack: bool) -> Result<(), String> {
        let completions = match &mut lock(&self.inner).confirms {
            Some(confirms) => confirms
                .confirmed(tag, multiple, ack)
                .ok_or_else(|| format!("a confirm of message {tag}, which was never published"))?,
            // In flight when the channel was closed.
            None if self.writer.is_closed() => return Ok(()),
            None => return Err("a confirm on a channel without confirms".to_owned()),
        };
        // A callback may use this channel, so it is called without the lock.
        completions.into_iter().for_each(Completion::call);
        Ok(())
    }

    /// Handles `basic.return`. It is only logged unless the channel is in confirm mode.
    pub(crate) fn on_return(&self, route: &Route, code: u16, text: String) {
        match &mut lock(&self.inner).confirms {
            Some(confirms) => confirms.returned(route, code, text),
            None => tracing::debug!(?route, code, text, "an unconfirmed message was returned"),
        }
    }

    /// Handles the reply to the oldest request. A message fetched for a cancelled caller is
    /// requeued.
    pub(crate) fn on_reply(&self, class: u16, method: u16, reply: Reply) -> Result<(), String> {
        let request = lock(&self.inner).requests.pop_front();
        match request {
            Some(request)
                if (request.class, request.reply_method) == (class, method)
                    || request.is_get() && matches!(reply, Reply::Got(None)) =>
            {
                if let Err(Ok(Reply::Got(Some(delivery)))) = request.reply.send(Ok(reply)) {
                    delivery.acker.reject(true);
                }
                Ok(())
            }
            _ => Err(format!("an unexpected reply {class}.{method}")),
        }
    }

    /// Handles `basic.consume-ok`. The consumer of a cancelled caller is cancelled.
    pub(crate) fn on_consume_ok(&self, tag: &str) -> Result<(), String> {
        let abandoned = lock(&self.inner)
            .requests
            .front()
            .is_some_and(|request| request.reply.is_closed());
        self.on_reply(60, 21, Reply::Done)?;
        if abandoned && self.remove_consumer(tag).is_some() {
            let cancel = basic::AMQPMethod::Cancel(basic::Cancel {
                consumer_tag: encode::short_string("the consumer tag", tag)
                    .map_err(|error| error.to_string())?,
                nowait: true,
            });
            self.send_method(AMQPClass::Basic(cancel));
        }
        Ok(())
    }

    /// Sends a method that has no reply.
    pub(crate) fn send_method(&self, method: AMQPClass) {
        self.writer.send(|out| {
            // Encoding cannot fail: the method consists of constants and checked short strings.
            let _ = encode::method(out, self.id(), method);
        });
    }

    /// Sends `channel.close`. Returns the receiver of the reply, `None` if the channel is closed.
    pub(crate) fn close(&self) -> Option<ReplyReceiver> {
        let close = channel::AMQPMethod::Close(channel::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        });
        let mut inner = lock(&self.inner);
        inner.check_open().ok()?;
        let (reply, receiver) = oneshot::channel();
        inner.requests.push_back(Request {
            class: 20,
            reply_method: 41,
            reply,
        });
        let sent = self.writer.close_with(|out| {
            // Encoding cannot fail: the method consists of constants.
            let _ = encode::method(out, self.id(), AMQPClass::Channel(close));
        });
        if !sent {
            inner.requests.pop_back();
            return None;
        }
        Some(receiver)
    }

    /// Replies to `channel.close`. Returns `false` if this side is closing the channel too: the
    /// broker then still answers with `channel.close-ok`.
    pub(crate) fn confirm_close(&self) -> bool {
        let was_open = self.writer.close();
        // The channel's writer is closed, so this goes past it.
        self.connection().send(|out| {
            let ok = AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}));
            let _ = encode::method(out, self.id(), ok);
        });
        was_open
    }

    /// Handles `channel.close-ok`.
    pub(crate) fn on_close_ok(&self) {
        let close = {
            let mut inner = lock(&self.inner);
            let last = inner.requests.pop_back();
            last.filter(|last| (last.class, last.reply_method) == (20, 41))
        };
        self.set_closed(self.closed_error());
        if let Some(close) = close {
            let _ = close.reply.send(Ok(Reply::Done));
        }
    }

    /// Ends the channel with `error`: fails all requests and unconfirmed messages, drops consumers.
    pub(crate) fn set_closed(&self, error: Error) {
        let (requests, consumers, confirms) = {
            let mut inner = lock(&self.inner);
            inner.closed.get_or_insert_with(|| error.clone());
            (
                std::mem::take(&mut inner.requests),
                std::mem::take(&mut inner.consumers),
                inner.confirms.take(),
            )
        };
        for request in requests {
            let _ = request.reply.send(Err(error.clone()));
        }
        if let Some(mut confirms) = confirms {
            confirms.close(&error);
        }
        // Dropping a sink may run code that uses this channel: not under the lock.
        drop(consumers);
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(error);
            first
        });
    }

    /// Waits for the end of the channel and returns the error that caused it.
    pub(crate) async fn closed(&self) -> Error {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(error)) => error.clone(),
            // Unreachable: `self` owns the sender.
            _ => self.closed_error(),
        }
    }

    /// Returns the error that ended the channel or its connection.
    fn close_reason(&self) -> Error {
        if let Some(error) = &*self.closed.borrow() {
            return error.clone();
        }
        if self.connection().is_open() {
            self.closed_error()
        } else {
            self.connection().close_reason()
        }
    }

    fn closed_error(&self) -> Error {
        Error::Closed {
            peer: self.connection().peer.clone(),
            what: "channel",
        }
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), Error> {
        match &self.closed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl Request {
    /// Returns whether it is a `basic.get`, which has two possible replies.
    fn is_get(&self) -> bool {
        (self.class, self.reply_method) == (60, 71)
    }
}

impl fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id())
            .field("peer", &self.connection().peer)
            .finish_non_exhaustive()
    }
}
