//! What a channel's handles and the reader share.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use amq_protocol::protocol::{AMQPClass, basic, channel};
use tokio::sync::{oneshot, watch};

use crate::{
    confirms::{Completion, Confirms, Outcome, Route},
    connection_state::ConnectionState,
    delivery::{ConsumerTag, Delivery, Sink},
    encode,
    error::{Error, PublishError},
    message::Publish,
    sync::lock,
};

/// The state of one channel.
pub(crate) struct ChannelState {
    pub(crate) id: u16,
    pub(crate) connection: Arc<ConnectionState>,
    /// Whether frames may be sent on it. Changed and asked under the lock of the connection's output, so that no frame
    /// follows a close on the wire.
    open: AtomicBool,
    inner: Mutex<Inner>,
    ended: watch::Sender<Option<Error>>,
}

#[derive(Default)]
struct Inner {
    /// Why nothing can be asked any more.
    ended: Option<Error>,
    /// Who waits for an answer, in the order of asking: a broker answers in that order.
    waiting: VecDeque<Waiting>,
    consumers: HashMap<ConsumerTag, Consumer>,
    /// How many consumers were made, to name the next.
    named: u64,
    /// In confirm mode, what is unconfirmed.
    confirms: Option<Confirms>,
}

struct Waiting {
    /// The class of the method that was sent; the answer is of the same class.
    class: u16,
    /// The number of the answer.
    method: u16,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

/// An answer to a method.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// `queue.declare-ok`.
    Declared {
        name: String,
        messages: u32,
        consumers: u32,
    },
    /// How many messages it was about.
    Count(u32),
    /// A message was fetched, or there was none.
    Got(Option<Box<Delivery>>),
}

/// A consumer on a channel.
pub(crate) struct Consumer {
    pub(crate) sink: Sink,
    /// Called when the broker ends the consumer.
    pub(crate) on_cancel: Box<dyn FnOnce(ConsumerTag) + Send>,
}

impl ChannelState {
    pub(crate) fn new(id: u16, connection: Arc<ConnectionState>) -> Self {
        Self {
            id,
            connection,
            open: AtomicBool::new(true),
            inner: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }

    /// Encodes into the output unless the channel is closed: then `false`.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.connection
            .send_while(|| self.open.load(Ordering::Relaxed), encode)
    }

    /// Sends `method` and waits for the answer with the number `answer`.
    pub(crate) async fn call(&self, method: AMQPClass, answer: u16) -> Result<Reply, Error> {
        let reply = self.ask_then(method, answer, |_| ())?;
        self.answer(reply).await
    }

    pub(crate) async fn answer(
        &self,
        reply: oneshot::Receiver<Result<Reply, Error>>,
    ) -> Result<Reply, Error> {
        // The sender is dropped unused only with the channel's state.
        reply.await.unwrap_or_else(|_| Err(self.reason()))
    }

    /// Sends `method`, and under the same lock does `then`; the answer comes through the receiver.
    fn ask_then(
        &self,
        method: AMQPClass,
        answer: u16,
        then: impl FnOnce(&mut Inner),
    ) -> Result<oneshot::Receiver<Result<Reply, Error>>, Error> {
        let class = method.get_amqp_class_id();
        let mut encoded = Vec::new();
        encode::method(&mut encoded, self.id, method)?;
        if encoded.len() > self.connection.limits.frame_max {
            return Err(Error::Unsendable {
                reason: format!(
                    "arguments of {} bytes are more than the {} that the broker takes",
                    encoded.len(),
                    self.connection.limits.frame_max
                ),
            });
        }
        let mut inner = lock(&self.inner);
        self.check(&inner)?;
        let (reply, receiver) = oneshot::channel();
        inner.waiting.push_back(Waiting {
            class,
            method: answer,
            reply,
        });
        if !self.send(|out| out.extend_from_slice(&encoded)) {
            inner.waiting.pop_back();
            return Err(self.reason());
        }
        then(&mut inner);
        Ok(receiver)
    }

    /// Registers a consumer under a name of its own.
    pub(crate) fn add_consumer(&self, consumer: Consumer) -> Result<ConsumerTag, Error> {
        let mut inner = lock(&self.inner);
        self.check(&inner)?;
        inner.named += 1;
        let tag = ConsumerTag::from(format!("c{}.{}", self.id, inner.named));
        inner.consumers.insert(Arc::clone(&tag), consumer);
        Ok(tag)
    }

    /// Forgets a consumer.
    pub(crate) fn remove_consumer(&self, tag: &str) -> Option<(ConsumerTag, Consumer)> {
        lock(&self.inner).consumers.remove_entry(tag)
    }

    /// The name and sink of a consumer.
    pub(crate) fn consumer(&self, tag: &str) -> Option<(ConsumerTag, Sink)> {
        let inner = lock(&self.inner);
        let (tag, consumer) = inner.consumers.get_key_value(tag)?;
        Some((Arc::clone(tag), Arc::clone(&consumer.sink)))
    }

    /// Whether the channel is in confirm mode.
    pub(crate) fn confirms(&self) -> bool {
        lock(&self.inner).confirms.is_some()
    }

    /// Sends `confirm.select`; each publish after it is counted, as the broker does.
    pub(crate) async fn select_confirms(&self, select: AMQPClass) -> Result<(), Error> {
        let reply = self.ask_then(select, 11, |inner| {
            inner.confirms.get_or_insert_with(Confirms::new);
        })?;
        self.answer(reply).await.map(drop)
    }

    /// Whether no publish waits for its confirm.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.inner)
            .confirms
            .as_ref()
            .is_none_or(Confirms::is_empty)
    }

    /// Encodes a message for [`ConnectionState::flush`] to write; `then` is called on the I/O task when the broker has said what
    /// becomes of it. Gives both back where that is not possible right now, or the message cannot be encoded.
    pub(crate) fn put<F>(&self, message: Publish, then: F) -> Result<(), Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        let mut inner = lock(&self.inner);
        let Some(confirms) = &mut inner.confirms else {
            return Err(Box::new((message, then)));
        };
        let mut encoded = Ok(());
        let frame_max = self.connection.limits.frame_max;
        let sent = self.connection.put_while(
            || self.open.load(Ordering::Relaxed),
            |out| encoded = encode::publish(out, self.id, &message, frame_max),
        );
        if !sent || encoded.is_err() {
            return Err(Box::new((message, then)));
        }
        confirms.put(message, then);
        Ok(())
    }

    /// Sends a message, in confirm mode with somewhere to hear of its confirm.
    pub(crate) fn publish(
        &self,
        message: &Publish,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Error> {
        // One lock from numbering to encoding: the broker numbers messages in the order they come.
        let mut inner = lock(&self.inner);
        self.check(&inner)?;
        let receiver = inner
            .confirms
            .as_mut()
            .map(|confirms| confirms.published(message));
        let mut encoded = Ok(());
        let frame_max = self.connection.limits.frame_max;
        let sent = self.send(|out| encoded = encode::publish(out, self.id, message, frame_max));
        if !sent || encoded.is_err() {
            if let Some(confirms) = &mut inner.confirms {
                confirms.unpublished();
            }
            encoded?;
            return Err(self.reason());
        }
        Ok(receiver)
    }

    /// The broker confirmed publishes.
    pub(crate) fn confirmed(&self, tag: u64, multiple: bool, ack: bool) -> Result<(), String> {
        let due = match &mut lock(&self.inner).confirms {
            Some(confirms) => confirms
                .confirmed(tag, multiple, ack)
                .ok_or_else(|| format!("a confirm of message {tag} that was never published"))?,
            // It came after the channel's end.
            None if self.is_shut() => return Ok(()),
            None => return Err("a confirm on a channel without confirms".to_owned()),
        };
        // They may do anything: called without the lock.
        due.into_iter().for_each(Completion::tell);
        Ok(())
    }

    /// The broker gave a mandatory message back. Without confirms nobody waits to hear of it.
    pub(crate) fn returned(&self, route: &Route, code: u16, text: String) {
        match &mut lock(&self.inner).confirms {
            Some(confirms) => confirms.returned(route, code, text),
            None => tracing::debug!(
                ?route,
                code,
                text,
                "an unconfirmed mandatory message came back"
            ),
        }
    }

    /// An answer came. What it brings for somebody who has given up is put right.
    pub(crate) fn replied(&self, class: u16, method: u16, reply: Reply) -> Result<(), String> {
        let waiting = lock(&self.inner).waiting.pop_front();
        match waiting {
            Some(waiting)
                if (waiting.class, waiting.method) == (class, method)
                    || is_empty_get(&waiting, &reply) =>
            {
                if let Err(Ok(Reply::Got(Some(delivery)))) = waiting.reply.send(Ok(reply)) {
                    delivery.acker.reject(true);
                }
                Ok(())
            }
            _ => Err(format!("an answer {class}.{method} that nobody asked for")),
        }
    }

    /// The broker began to consume for `tag`; if who asked has given up, the consumer is ended again.
    pub(crate) fn consuming(&self, tag: &str) -> Result<(), String> {
        let abandoned = lock(&self.inner)
            .waiting
            .front()
            .is_some_and(|w| w.reply.is_closed());
        self.replied(60, 21, Reply::Done)?;
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

    /// Sends a method that is not answered.
    pub(crate) fn send_method(&self, method: AMQPClass) {
        self.send(|out| {
            // Made of constants and checked short strings: it fits.
            let _ = encode::method(out, self.id, method);
        });
    }

    /// Asks the broker to close the channel, once; the answer comes through the receiver.
    pub(crate) fn close(&self) -> Option<oneshot::Receiver<Result<Reply, Error>>> {
        let close = channel::AMQPMethod::Close(channel::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        });
        let mut inner = lock(&self.inner);
        self.check(&inner).ok()?;
        let (reply, receiver) = oneshot::channel();
        inner.waiting.push_back(Waiting {
            class: 20,
            method: 41,
            reply,
        });
        let sent = self.connection.send_while(
            || self.open.swap(false, Ordering::Relaxed),
            |out| {
                // Made of constants: it fits.
                let _ = encode::method(out, self.id, AMQPClass::Channel(close));
            },
        );
        if !sent {
            inner.waiting.pop_back();
            return None;
        }
        Some(receiver)
    }

    /// The broker closes the channel for `error`.
    pub(crate) fn closed_by_broker(&self, error: Error) {
        let closing_too = !self.shut();
        // `send` would refuse: the channel is shut.
        self.connection.send(|out| {
            let ok = AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}));
            let _ = encode::method(out, self.id, ok);
        });
        if !closing_too {
            self.connection.remove_channel(self.id);
        }
        self.end(error);
    }

    /// The broker answered our close.
    pub(crate) fn close_ok(&self) -> Result<(), String> {
        if !self.is_shut() {
            return Err(format!(
                "an answer to a close of channel {} that nobody asked for",
                self.id
            ));
        }
        self.connection.remove_channel(self.id);
        let closing = {
            let mut inner = lock(&self.inner);
            let last = inner.waiting.pop_back();
            last.filter(|last| (last.class, last.method) == (20, 41))
        };
        self.end(self.closed_error());
        if let Some(closing) = closing {
            let _ = closing.reply.send(Ok(Reply::Done));
        }
        Ok(())
    }

    /// Whether it was closed, by whichever side.
    pub(crate) fn is_shut(&self) -> bool {
        !self.open.load(Ordering::Relaxed)
    }

    /// Nothing more is sent on it. `false` if that was so already.
    fn shut(&self) -> bool {
        let mut was_open = false;
        self.connection.send_while(
            || {
                was_open = self.open.swap(false, Ordering::Relaxed);
                false
            },
            |_| (),
        );
        was_open
    }

    /// Whether frames may be sent on it.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
            && self.connection.is_open()
            && lock(&self.inner).ended.is_none()
    }

    /// The channel is over: everybody who waits is told why.
    pub(crate) fn end(&self, error: Error) {
        let (waiting, consumers, confirms) = {
            let mut inner = lock(&self.inner);
            inner.ended.get_or_insert_with(|| error.clone());
            (
                std::mem::take(&mut inner.waiting),
                std::mem::take(&mut inner.consumers),
                inner.confirms.take(),
            )
        };
        for waiting in waiting {
            let _ = waiting.reply.send(Err(error.clone()));
        }
        if let Some(mut confirms) = confirms {
            confirms.end(&error);
        }
        // Sinks may hold anything: dropped without the lock.
        drop(consumers);
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(error);
            first
        });
    }

    /// Resolves when the channel is over.
    pub(crate) async fn ended(&self) -> Error {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(error)) => error.clone(),
            // The sender lives in `self`.
            _ => self.closed_error(),
        }
    }

    fn check(&self, inner: &Inner) -> Result<(), Error> {
        match &inner.ended {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Why it cannot be used.
    fn reason(&self) -> Error {
        if let Some(error) = &*self.ended.borrow() {
            return error.clone();
        }
        if self.connection.is_open() {
            self.closed_error()
        } else {
            self.connection.reason()
        }
    }

    fn closed_error(&self) -> Error {
        Error::Closed {
            peer: self.connection.peer.clone(),
            what: "channel",
        }
    }
}

/// `basic.get` has two answers.
fn is_empty_get(waiting: &Waiting, reply: &Reply) -> bool {
    (waiting.class, waiting.method) == (60, 71) && matches!(reply, Reply::Got(None))
}

impl fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("peer", &self.connection.peer)
            .finish_non_exhaustive()
    }
}
