//! A virtual host: exchanges, queues, bindings and consumers behind one lock.
//!
//! Every operation takes the lock for as long as it takes to do it, writes what is to be sent into send_buffers, and lets go.
//! Nothing waits while it holds the lock.

mod acknowledgements;
mod channels;
mod consumers;
mod dead_letters;
mod direct_replies;
mod exchanges;
mod expiry;
mod publish;
mod queues;
mod state;

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use tokio::sync::Notify;

use crate::{ids::ConnectionId, sync::lock};

#[cfg(feature = "management")]
pub(crate) use self::queues::GetResult;
pub(crate) use self::{
    acknowledgements::Settlement,
    consumers::ConsumeRequest,
    exchanges::{BindTo, DeclareExchange},
    publish::{IncomingPublish, Published},
    queues::{DeclareQueue, count},
    state::VHostState,
};

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

impl VHost {
    /// An empty virtual host with the exchanges every one has.
    pub(crate) fn new(name: &str) -> Self {
        let timer = Arc::new(Notify::new());
        let state = VHostState::new(name, timer.clone());
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

    /// Does one operation, and wakes the connections that got something by it.
    #[cfg(feature = "management")]
    pub(crate) fn update<T>(&self, operation: impl FnOnce(&mut VHostState) -> T) -> T {
        let done = operation(&mut self.lock());
        self.wake_others(None);
        done
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use amq_protocol::types::FieldTable;

    use super::*;
    use crate::{message::Message, send_buffer::SendBuffer};

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
