//! The reply queue of a client.

use std::{
    fmt::Display,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Weak},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::reply_table::{PendingCall, REPLY_GRACE_PERIOD, ReplyTable};
use crate::{
    amqp::{self, Consumers, Delivery, Exchange, Subscription},
    protocol,
};

/// A reply queue and the calls that are pending on it.
///
/// Replies are matched on the I/O task: they never wait for a worker.
pub(crate) struct Replies {
    /// The routing key of the queue, the `reply_to` of requests.
    pub(crate) reply_to: String,
    calls: Arc<ReplyTable<oneshot::Sender<Answer>>>,
}

/// A reply, or the reason why it can no longer arrive.
type Answer = Result<Delivery, String>;

impl PendingCall for oneshot::Sender<Answer> {
    fn complete(self, reply: Answer) {
        // Fails if the caller has just given up.
        drop(self.send(reply));
    }
}

impl Replies {
    /// Consumes a new reply queue of `owner`.
    pub(crate) fn subscribe(
        consumers: &Consumers,
        exchange: &Exchange,
        owner: &str,
        prefetch: Option<u16>,
    ) -> Arc<Self> {
        let id = Uuid::new_v4();
        let replies = Arc::new(Self {
            reply_to: id.to_string(),
            calls: Arc::default(),
        });
        let (calls, recovered_calls) = (
            Arc::downgrade(&replies.calls),
            Arc::downgrade(&replies.calls),
        );
        consumers.add_temporary(Subscription {
            queue: protocol::reply_queue(exchange, owner, id),
            prefetch,
            sink: Arc::new(move |delivery| match calls.upgrade() {
                Some(calls) => {
                    if let Some(unknown) = calls.receive(delivery) {
                        let id = unknown.properties.correlation_id;
                        tracing::debug!(
                            "unknown correlation id: {}",
                            id.as_deref().unwrap_or("none")
                        );
                    }
                }
                None => delivery.acker.ack(),
            }),
            on_recovered: Some(Arc::new(move |survived| {
                if let Some(calls) = recovered_calls.upgrade().filter(|_| !survived) {
                    calls.fail_all("the reply queue no longer existed after the reconnect");
                }
            })),
        });
        replies
    }

    /// Registers a call under a new correlation id.
    pub(crate) fn expect(&self) -> Pending {
        let correlation_id = Uuid::new_v4().to_string();
        let (sender, answer) = oneshot::channel();
        // Cannot fail: the id is new and random.
        let _ = self.calls.insert(correlation_id.clone(), sender);
        Pending {
            correlation_id,
            answer,
            calls: Arc::downgrade(&self.calls),
        }
    }

    /// Handles a lost connection. Replies may still arrive after the reconnect.
    pub(crate) fn lost(&self, reason: impl Display) {
        self.calls.connection_lost(|| {
            format!("{reason}; it was not restored within {REPLY_GRACE_PERIOD:?}")
        });
    }

    /// Handles a reconnect.
    pub(crate) fn connected(&self) {
        self.calls.connection_recovered();
    }

    /// Fails the pending calls, and all later ones: the queue is no longer consumed.
    pub(crate) fn close(&self, reason: &str) {
        self.calls.close(reason);
    }
}

/// A pending call. Dropping it abandons the call.
pub(crate) struct Pending {
    correlation_id: String,
    answer: oneshot::Receiver<Answer>,
    calls: Weak<ReplyTable<oneshot::Sender<Answer>>>,
}

impl Pending {
    /// The `correlation_id` of the request.
    pub(crate) fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// Waits for the reply, or the reason why it can no longer arrive.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = poll_fn(|context| {
            let answer = Pin::new(&mut self.answer).poll(context);
            if answer.is_pending() {
                amqp::waits_for_connection();
            }
            answer
        });
        answer
            .await
            .unwrap_or_else(|_| Err("the client was stopped".to_owned()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.upgrade() {
            calls.remove_if(&self.correlation_id, |_| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::amqp::ConnectOptions;

    #[tokio::test(start_paused = true)]
    async fn a_call_on_a_lost_connection_reports_why_it_was_lost() {
        let consumers = Consumers::new(ConnectOptions::new(Vec::new()), Arc::new(()));
        let replies = Replies::subscribe(&consumers, &Exchange::topic("rpc"), "test", None);
        replies.lost("the cable was cut");
        for _ in 0..3 {
            let answer = tokio::time::timeout(REPLY_GRACE_PERIOD + Duration::from_secs(1), async {
                replies.expect().answer().await
            });
            let reason = answer.await.expect("in time").expect_err("no reply");
            assert!(reason.contains("the cable was cut"), "{reason}");
        }
    }
}
