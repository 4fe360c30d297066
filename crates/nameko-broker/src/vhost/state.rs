//! The state of a virtual host.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    binding::Bindings,
    channel_consumers::ChannelConsumers,
    consumer::Consumer,
    dead_letter::DeadLetter,
    exchange::{Exchange, ExchangeKind},
    ids::{ChannelId, ConsumerId, QueueId},
    name::Name,
    queue::Queue,
    send_buffer::SendBuffer,
};

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
    /// Channels with a direct-reply consumer, by address.
    pub(crate) reply_channels: HashMap<Name, ChannelId>,
    /// When the timer has to check which queue; at most one entry per queue.
    pub(crate) deadlines: BTreeSet<(Instant, QueueId)>,
    pub(crate) timer: Arc<Notify>,
    /// Dead letters of the current operation, and those beyond the limit of earlier flushes.
    pub(crate) dead_letters: VecDeque<DeadLetter>,
    /// Connections with new output, woken after the lock is released.
    pub(crate) wakes: Vec<Arc<SendBuffer>>,
    /// Set when the virtual host is deleted; ends its timer.
    pub(crate) deleted: bool,
    next_id: u64,
}

impl VHostState {
    /// Creates the state with the predefined exchanges. `timer` wakes the timer task.
    pub(super) fn new(name: &str, timer: Arc<Notify>) -> Self {
        let mut state = Self {
            name: name.into(),
            exchanges: HashMap::new(),
            bindings: Bindings::default(),
            queues: HashMap::new(),
            queue_ids: HashMap::new(),
            consumers: HashMap::new(),
            channels: HashMap::new(),
            reply_channels: HashMap::new(),
            deadlines: BTreeSet::new(),
            timer,
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
        state
    }

    /// Allocates an id.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Schedules a connection to be woken after the lock is released.
    pub(crate) fn wake(&mut self, send_buffer: &Arc<SendBuffer>) {
        if !send_buffer.wake_pending.swap(true, Ordering::Relaxed) {
            self.wakes.push(send_buffer.clone());
        }
    }

    /// Marks the virtual host as deleted, deletes all queues and cancels their consumers.
    pub(crate) fn delete_all(&mut self) {
        self.deleted = true;
        let queues: Vec<QueueId> = self.queues.keys().copied().collect();
        for queue in queues {
            self.delete_queue(queue);
        }
        self.timer.notify_one();
    }

    /// Formats a queue for reply texts: `queue 'q' in vhost '/'`.
    pub(crate) fn queue_text(&self, name: &str) -> String {
        format!("queue '{name}' in vhost '{}'", self.name)
    }

    /// Formats an exchange for reply texts: `exchange 'x' in vhost '/'`.
    pub(crate) fn exchange_text(&self, name: &str) -> String {
        format!("exchange '{name}' in vhost '{}'", self.name)
    }
}
