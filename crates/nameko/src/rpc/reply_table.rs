//! Matching of replies to pending calls by correlation id.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::{amqp::Delivery, sync::lock};

/// How long a lost connection may take to come back before the pending calls fail.
///
/// The reply queue outlives the connection, so replies may still arrive within this time.
pub const REPLY_GRACE_PERIOD: Duration = Duration::from_secs(30);

/// A pending call.
pub trait PendingCall: Send + 'static {
    /// Completes the call with its reply, or with the reason why no reply can arrive.
    fn complete(self, reply: Result<Delivery, String>);
}

/// The pending calls of one reply queue, by correlation id.
///
/// No method blocks, so all of them may be called on the I/O task. Calls are completed without a
/// lock held.
pub struct ReplyTable<C> {
    state: Mutex<State<C>>,
}

struct State<C> {
    calls: HashMap<String, C>,
    /// Fails the pending calls after each grace period, while the connection is lost.
    grace_period: Option<AbortHandle>,
    /// The reason why the table was closed.
    closed: Option<String>,
}

impl<C: PendingCall> ReplyTable<C> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                calls: HashMap::new(),
                grace_period: None,
                closed: None,
            }),
        }
    }

    /// Adds a pending call. In a closed table the call fails at once.
    ///
    /// # Errors
    /// Returns `call` if another one is pending with this correlation id.
    pub fn insert(&self, correlation_id: String, call: C) -> Result<(), C> {
        let mut state = lock(&self.state);
        if let Some(reason) = state.closed.clone() {
            drop(state);
            call.complete(Err(reason));
            return Ok(());
        }
        match state.calls.entry(correlation_id) {
            Entry::Occupied(_) => Err(call),
            Entry::Vacant(entry) => {
                entry.insert(call);
                Ok(())
            }
        }
    }

    /// Removes a call without completing it, if `is_same` recognises it.
    pub fn remove_if(&self, correlation_id: &str, is_same: impl FnOnce(&C) -> bool) -> Option<C> {
        let calls = &mut lock(&self.state).calls;
        if calls.get(correlation_id).is_some_and(is_same) {
            calls.remove(correlation_id)
        } else {
            None
        }
    }

    /// The number of pending calls.
    pub fn len(&self) -> usize {
        lock(&self.state).calls.len()
    }

    /// Whether no call is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Acknowledges a delivery and completes its call. Returns the delivery if no call is pending
    /// with its correlation id.
    pub fn receive(&self, delivery: Delivery) -> Option<Delivery> {
        delivery.acker.ack();
        let correlation_id = delivery.properties.correlation_id.as_deref();
        let call = correlation_id.and_then(|id| lock(&self.state).calls.remove(id));
        match call {
            Some(call) => {
                call.complete(Ok(delivery));
                None
            }
            None => Some(delivery),
        }
    }

    /// Starts the grace period, unless it is running: the calls that are pending at its end fail
    /// with `reason`, and so do later ones at the end of each further period.
    pub fn connection_lost(self: &Arc<Self>, reason: impl FnOnce() -> String) {
        // The observer of a connection runs inside its runtime.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut state = lock(&self.state);
        if state.grace_period.is_some() || state.closed.is_some() {
            return;
        }
        let (table, reason) = (Arc::downgrade(self), reason());
        let fail_calls = async move {
            loop {
                tokio::time::sleep(REPLY_GRACE_PERIOD).await;
                let Some(table) = table.upgrade() else {
                    return;
                };
                table.fail_all(&reason);
            }
        };
        state.grace_period = Some(runtime.spawn(fail_calls).abort_handle());
    }

    /// Ends the grace period.
    pub fn connection_recovered(&self) {
        if let Some(grace_period) = lock(&self.state).grace_period.take() {
            grace_period.abort();
        }
    }

    /// Fails the pending calls.
    pub fn fail_all(&self, reason: &str) {
        let calls = std::mem::take(&mut lock(&self.state).calls);
        for call in calls.into_values() {
            call.complete(Err(reason.to_owned()));
        }
    }

    /// Fails the pending calls, and all that are added from now on. The first reason stays.
    pub fn close(&self, reason: &str) {
        lock(&self.state)
            .closed
            .get_or_insert_with(|| reason.to_owned());
        self.connection_recovered();
        self.fail_all(reason);
    }
}

impl<C: PendingCall> Default for ReplyTable<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Drop for ReplyTable<C> {
    fn drop(&mut self) {
        let state = self
            .state
            .get_mut()
            .unwrap_or_else(|error| error.into_inner());
        if let Some(grace_period) = state.grace_period.take() {
            grace_period.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    type Outcome = (u32, Result<Delivery, String>);

    struct Call(u32, Sender<Outcome>);

    impl PendingCall for Call {
        fn complete(self, reply: Result<Delivery, String>) {
            let _ = self.1.send((self.0, reply));
        }
    }

    fn table() -> (Arc<ReplyTable<Call>>, Sender<Outcome>, Receiver<Outcome>) {
        let (sender, receiver) = channel();
        (Arc::default(), sender, receiver)
    }

    fn failures(receiver: &Receiver<Outcome>) -> Vec<(u32, String)> {
        receiver
            .try_iter()
            .map(|(number, reply)| (number, reply.expect_err("no reply arrived")))
            .collect()
    }

    #[test]
    fn an_abandoned_call_leaves_nothing_behind() {
        let (table, sender, receiver) = table();
        let add = |number| table.insert("a".to_owned(), Call(number, sender.clone()));
        assert!(add(1).is_ok());
        assert!(add(2).is_err(), "the id is in use");
        assert!(table.remove_if("a", |call| call.0 == 2).is_none());
        assert_eq!(table.len(), 1, "another call is left alone");
        assert!(table.remove_if("a", |call| call.0 == 1).is_some());
        assert!(table.is_empty());
        assert!(failures(&receiver).is_empty());
    }

    #[test]
    fn no_call_hangs_in_a_closed_table() {
        let (table, sender, receiver) = table();
        assert!(
            table
                .insert("a".to_owned(), Call(1, sender.clone()))
                .is_ok()
        );
        table.close("stopped");
        table.close("stopped again");
        assert!(table.insert("a".to_owned(), Call(2, sender)).is_ok());
        let stopped = "stopped".to_owned();
        assert_eq!(failures(&receiver), [(1, stopped.clone()), (2, stopped)]);
        assert!(table.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_on_a_lost_connection_fails_after_the_grace_period() {
        let (table, sender, receiver) = table();
        table.connection_lost(|| "lost".to_owned());
        for number in 0..3 {
            assert!(
                table
                    .insert("a".to_owned(), Call(number, sender.clone()))
                    .is_ok()
            );
            tokio::time::sleep(REPLY_GRACE_PERIOD / 2).await;
            table.connection_lost(|| unreachable!("the grace period is running"));
            tokio::time::sleep(REPLY_GRACE_PERIOD / 2 + Duration::from_millis(1)).await;
            assert_eq!(failures(&receiver), [(number, "lost".to_owned())]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_survives_a_reconnect_within_the_grace_period() {
        let (table, sender, receiver) = table();
        assert!(table.insert("a".to_owned(), Call(1, sender)).is_ok());
        table.connection_lost(|| "lost".to_owned());
        tokio::time::sleep(REPLY_GRACE_PERIOD / 2).await;
        table.connection_recovered();
        tokio::time::sleep(REPLY_GRACE_PERIOD * 2).await;
        assert!(failures(&receiver).is_empty());
        assert_eq!(table.len(), 1);
    }
}
