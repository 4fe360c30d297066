//! A virtual host: exchanges, queues, bindings and consumers behind one lock.
//!
//! Every operation takes the lock for as long as it takes to do it, writes what is to be sent into send_buffers, and lets go.
//! Nothing waits while it holds the lock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    binding::Bindings,
    consumer::Consumer,
    dead_letter::DeadLetter,
    direct_reply::ReplyConsumer,
    exchange::{Exchange, ExchangeKind},
    message::{Entry, Name},
    queue::Queue,
    send_buffer::SendBuffer,
    sync::lock,
};

/// A connection, for as long as the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// An open channel of any connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId(pub(crate) u64);

/// A queue; one that is deleted and declared again is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u64);

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConsumerId(pub(crate) u64);

/// A virtual host.
#[derive(Debug)]
pub(crate) struct VHost {
    state: Mutex<VHostState>,
    /// Wakes the timer when an earlier deadline came up.
    pub(crate) timer: Arc<Notify>,
}

/// The state while it is locked. Dead letters of an operation are published when it is let go.
#[derive(Debug)]
pub(crate) struct VHostGuard<'a> {
    state: MutexGuard<'a, VHostState>,
}

/// Everything in a virtual host.
#[derive(Debug)]
pub(crate) struct VHostState {
    pub(crate) name: Name,
    pub(crate) exchanges: HashMap<Name, Exchange>,
    pub(crate) bindings: Bindings,
    pub(crate) queues: HashMap<QueueId, Queue>,
    pub(crate) queue_ids: HashMap<Name, QueueId>,
    pub(crate) consumers: HashMap<ConsumerId, Consumer>,
    pub(crate) channels: HashMap<ChannelId, ChannelConsumers>,
    /// Who gets direct replies, by address.
    pub(crate) reply_channels: HashMap<Name, ChannelId>,
    /// When the timer has to look at which queue; one entry for each queue at most.
    pub(crate) deadlines: BTreeSet<(Instant, QueueId)>,
    pub(crate) timer: Arc<Notify>,
    /// What died in the operation that is going on, or was too much for the ones before.
    pub(crate) dead_letters: VecDeque<DeadLetter>,
    /// Connections that got something to send and are woken once the lock is free.
    pub(crate) wakes: Vec<Arc<SendBuffer>>,
    /// Set when the virtual host is no more; its timer ends then.
    pub(crate) deleted: bool,
    next_id: u64,
}

/// The consuming side of a channel; the publishing side is the connection's own.
#[derive(Debug)]
pub(crate) struct ChannelConsumers {
    pub(crate) number: u16,
    pub(crate) send_buffer: Arc<SendBuffer>,
    /// Whether the client said it understands `basic.cancel` from the server.
    pub(crate) cancel_notify: bool,
    pub(crate) consumers: HashMap<Name, ConsumerId>,
    /// Set while the channel listens for direct replies.
    pub(crate) replies: Option<ReplyConsumer>,
    /// Delivered and not acknowledged, by delivery tag.
    pub(crate) unacked: BTreeMap<u64, Unacked>,
    /// How many of `unacked` count against the channel's limit; `basic.get` does not.
    pub(crate) prefetch_used: u32,
    /// Limit for consumers to come (`basic.qos` with `global` off); 0 is none.
    pub(crate) consumer_prefetch: u16,
    /// Limit for the whole channel (`basic.qos` with `global` on); 0 is none.
    pub(crate) global_prefetch: u16,
    delivery_tag: u64,
}

/// A message delivered and not acknowledged.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) queue: QueueId,
    /// `None` when it was read with `basic.get`.
    pub(crate) consumer: Option<ConsumerId>,
    pub(crate) entry: Entry,
}

impl VHost {
    /// An empty virtual host with the exchanges every one has.
    pub(crate) fn new(name: &str) -> Self {
        let timer = Arc::new(Notify::new());
        let mut state = VHostState {
            name: name.into(),
            exchanges: HashMap::new(),
            bindings: Bindings::default(),
            queues: HashMap::new(),
            queue_ids: HashMap::new(),
            consumers: HashMap::new(),
            channels: HashMap::new(),
            reply_channels: HashMap::new(),
            deadlines: BTreeSet::new(),
            timer: timer.clone(),
            dead_letters: VecDeque::new(),
            wakes: Vec::new(),
            deleted: false,
            next_id: 0,
        };
        for (name, kind) in [
            ("", ExchangeKind::Direct),
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.headers", ExchangeKind::Headers),
            ("amq.match", ExchangeKind::Headers),
            ("amq.rabbitmq.trace", ExchangeKind::Topic),
            ("amq.topic", ExchangeKind::Topic),
        ] {
            let name: Name = name.into();
            let mut exchange = Exchange::new(name.clone(), kind);
            exchange.durable = true;
            exchange.internal = &*name == "amq.rabbitmq.trace";
            state.exchanges.insert(name, exchange);
        }
        Self {
            state: Mutex::new(state),
            timer,
        }
    }

    /// The state, for one short operation.
    pub(crate) fn lock(&self) -> VHostGuard<'_> {
        VHostGuard {
            state: lock(&self.state),
        }
    }

    /// Wakes the connections that got something to send; `own` needs no waking, it is at it.
    pub(crate) fn wake_others(&self, own: Option<ConnectionId>) {
        let wakes = {
            let mut state = self.lock();
            if state.wakes.is_empty() {
                return;
            }
            let wakes = std::mem::take(&mut state.wakes);
            for send_buffer in &wakes {
                send_buffer.wake_pending.store(false, Ordering::Relaxed);
            }
            wakes
        };
        for send_buffer in wakes {
            if Some(send_buffer.connection) != own {
                send_buffer.wake.notify_one();
            }
        }
    }
}

impl Deref for VHostGuard<'_> {
    type Target = VHostState;

    fn deref(&self) -> &VHostState {
        &self.state
    }
}

impl DerefMut for VHostGuard<'_> {
    fn deref_mut(&mut self) -> &mut VHostState {
        &mut self.state
    }
}

impl Drop for VHostGuard<'_> {
    fn drop(&mut self) {
        // Not after a fault: that would be told of twice.
        if !self.state.dead_letters.is_empty() && !std::thread::panicking() {
            self.state.flush_dead_letters();
        }
    }
}

impl VHostState {
    /// A number not used before.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Has a connection woken once the lock is free.
    pub(crate) fn wake(&mut self, send_buffer: &Arc<SendBuffer>) {
        if !send_buffer.wake_pending.swap(true, Ordering::Relaxed) {
            self.wakes.push(send_buffer.clone());
        }
    }

    /// Adds a channel.
    pub(crate) fn open_channel(
        &mut self,
        number: u16,
        send_buffer: Arc<SendBuffer>,
        cancel_notify: bool,
    ) -> ChannelId {
        let id = ChannelId(self.next_id());
        self.channels.insert(
            id,
            ChannelConsumers {
                number,
                send_buffer,
                cancel_notify,
                consumers: HashMap::new(),
                replies: None,
                unacked: BTreeMap::new(),
                prefetch_used: 0,
                consumer_prefetch: 0,
                global_prefetch: 0,
                delivery_tag: 0,
            },
        );
        id
    }

    /// Removes a channel: its consumers end, and what it has not acknowledged goes back.
    pub(crate) fn close_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        self.remove_direct_replies(channel.replies);
        // Back to the queues before the consumers go, or the last one would take an auto-delete queue and its messages
        // for empty. Nothing is delivered to this channel meanwhile, since it is no longer known.
        let queues = self.requeue_deliveries(channel.unacked.into_values(), true);
        for consumer in channel.consumers.into_values() {
            self.remove_consumer(consumer);
        }
        for queue in queues {
            self.enforce_limits_and_deliver(queue);
        }
    }

    /// Ends the virtual host: every queue goes, and their consumers are told.
    pub(crate) fn delete_all(&mut self) {
        self.deleted = true;
        let queues: Vec<QueueId> = self.queues.keys().copied().collect();
        for queue in queues {
            self.delete_queue(queue);
        }
        self.timer.notify_one();
    }

    /// `queue 'q' in vhost '/'`, as replies name things.
    pub(crate) fn queue_text(&self, name: &str) -> String {
        format!("queue '{name}' in vhost '{}'", self.name)
    }

    /// `exchange 'x' in vhost '/'`, as replies name things.
    pub(crate) fn exchange_text(&self, name: &str) -> String {
        format!("exchange '{name}' in vhost '{}'", self.name)
    }
}

impl ChannelConsumers {
    /// What the next delivery will have.
    pub(crate) fn peek_delivery_tag(&self) -> u64 {
        self.delivery_tag + 1
    }

    /// Delivery tags count up from 1 on each channel.
    pub(crate) fn next_delivery_tag(&mut self) -> u64 {
        self.delivery_tag += 1;
        self.delivery_tag
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        consumer::ConsumeRequest, exchanges::BindTo, message::Message, publish::Published,
        queues::DeclareQueue,
    };
    use amq_protocol::types::FieldTable;

    #[test]
    fn a_message_to_very_many_queues_and_their_end_take_no_time() {
        const QUEUES: u64 = 10_000;
        let vhost = VHost::new("/");
        let mut state = vhost.lock();
        let begun = Instant::now();
        for n in 0..QUEUES {
            let connection = ConnectionId(n);
            let channel = state.open_channel(1, Arc::new(SendBuffer::new(connection)), false);
            let name = format!("q{n}");
            let ask = DeclareQueue {
                name: &name,
                passive: false,
                durable: false,
                exclusive: true,
                auto_delete: false,
                table: FieldTable::default(),
            };
            state.declare_queue(ask, connection).unwrap();
            let to = BindTo::Queue(&name);
            let bound = state.bind("amq.fanout", to, "", FieldTable::default(), connection);
            bound.unwrap();
            let consume = ConsumeRequest {
                queue: &name,
                tag: "c",
                no_ack: true,
                exclusive: false,
                nowait: true,
                table: FieldTable::default(),
            };
            state.consume(channel, &consume).unwrap();
        }
        for _ in 0..5 {
            let message = Message {
                exchange: "amq.fanout".into(),
                ..Message::default()
            };
            assert_eq!(state.publish(message, None), Published::Routed);
        }
        assert_eq!(state.wakes.len() as u64, QUEUES);
        for n in 0..QUEUES {
            let id = state.queue_ids[&*format!("q{n}")];
            state.delete_queue(id);
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn giving_back_many_messages_before_a_long_backlog_takes_no_time() {
        const HELD: usize = 100_000;
        let vhost = VHost::new("/");
        let mut state = vhost.lock();
        let connection = ConnectionId(1);
        let channel = state.open_channel(1, Arc::new(SendBuffer::new(connection)), false);
        let ask = DeclareQueue {
            name: "q",
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            table: FieldTable::default(),
        };
        state.declare_queue(ask, connection).unwrap();
        for _ in 0..2 * HELD {
            let message = Message {
                routing_key: "q".into(),
                ..Message::default()
            };
            state.publish(message, None);
        }
        let hold = |state: &mut VHostState| {
            for _ in 0..HELD {
                assert!(
                    state
                        .get(channel, "q", false, connection)
                        .unwrap()
                        .is_some()
                );
            }
        };
        hold(&mut state);
        let begun = Instant::now();
        state.recover(channel);
        let recovered = begun.elapsed();
        hold(&mut state);
        let begun = Instant::now();
        state.close_channel(channel);
        let closed = begun.elapsed();
        assert!(
            recovered.max(closed) < Duration::from_secs(2),
            "{recovered:?} {closed:?}"
        );
    }
}
