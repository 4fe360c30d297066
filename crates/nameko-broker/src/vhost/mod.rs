//! Virtual hosts: exchanges, queues, bindings and consumers behind one lock.
//!
//! Each operation holds the lock for its whole duration, writes its output to send buffers and
//! never waits.

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
mod transactions;

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use tokio::sync::Notify;

use crate::{ids::ConnectionId, sync::lock};

#[cfg(feature = "management")]
pub(crate) use self::queues::GetResult;
pub(crate) use self::{
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
    /// Wakes the timer task when an earlier deadline is added.
    pub(crate) timer: Arc<Notify>,
}

/// The locked state. On drop, publishes the dead letters that the operation caused.
#[derive(Debug)]
pub(crate) struct VHostGuard<'a> {
    state: MutexGuard<'a, VHostState>,
}

impl VHost {
    /// Creates a virtual host with the predefined exchanges only.
    pub(crate) fn new(name: &str) -> Self {
        let timer = Arc::new(Notify::new());
        let state = VHostState::new(name, timer.clone());
        Self {
            state: Mutex::new(state),
            timer,
        }
    }

    /// Locks the state for one short operation.
    pub(crate) fn lock(&self) -> VHostGuard<'_> {
        VHostGuard {
            state: lock(&self.state),
        }
    }

    /// Performs an operation and wakes the connections for which it produced output.
    #[cfg(feature = "management")]
    pub(crate) fn update<T>(&self, operation: impl FnOnce(&mut VHostState) -> T) -> T {
        let done = operation(&mut self.lock());
        self.wake_others(None);
        done
    }

    /// Wakes the connections that have output to send, except `own`, which is running already.
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
        // Not after a panic, which could repeat.
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
    fn publishing_to_many_queues_and_deleting_them_is_fast() {
        const QUEUES: u64 = 10_000;
        let vhost = VHost::new("/");
        let mut state = vhost.lock();
        let begun = Instant::now();
        for n in 0..QUEUES {
            let connection = ConnectionId(n);
            let channel = state.open_channel(1, Arc::new(SendBuffer::new(connection)), false);
            let name = format!("q{n}");
            let request = DeclareQueue {
                name: &name,
                passive: false,
                durable: false,
                exclusive: true,
                auto_delete: false,
                table: FieldTable::default(),
            };
            state.declare_queue(request, connection).unwrap();
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
    fn requeueing_many_messages_before_a_long_backlog_is_fast() {
        const HELD: usize = 100_000;
        let vhost = VHost::new("/");
        let mut state = vhost.lock();
        let connection = ConnectionId(1);
        let channel = state.open_channel(1, Arc::new(SendBuffer::new(connection)), false);
        let request = DeclareQueue {
            name: "q",
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            table: FieldTable::default(),
        };
        state.declare_queue(request, connection).unwrap();
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
