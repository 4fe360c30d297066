//! The replies that callers wait for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::oneshot, task::AbortHandle};
use uuid::Uuid;

use crate::{
    amqp::{Consumers, Delivery, Exchange, Subscription},
    protocol,
};

/// How long callers wait for a lost connection to be made again before their replies count as lost.
const GRACE: Duration = Duration::from_secs(30);

/// A reply queue, and who waits for what arrives on it.
///
/// Replies are matched on the I/O task: they never wait for a worker.
pub(crate) struct Replies {
    /// The routing key of the queue: what requests carry as `reply_to`.
    pub(crate) reply_to: String,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By correlation id. A caller that gives up takes its entry out.
    callers: HashMap<Uuid, oneshot::Sender<Answer>>,
    /// Runs while the connection is lost: fails the callers after each grace period.
    grace: Option<AbortHandle>,
    /// Set for good when nobody consumes the queue any more, with the reason.
    closed: Option<String>,
}

/// A reply, or why it can no longer come.
type Answer = Result<Delivery, String>;

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
            waiting: Mutex::default(),
        });
        let (arrive, recover) = (Arc::downgrade(&replies), Arc::downgrade(&replies));
        consumers.add(Subscription {
            queue: protocol::reply_queue(exchange, owner, id),
            prefetch,
            sink: Arc::new(move |delivery| {
                delivery.acker.ack();
                if let Some(replies) = arrive.upgrade() {
                    replies.arrived(delivery);
                }
            }),
            on_recovered: Some(Arc::new(move |survived| {
                if let Some(replies) = recover.upgrade().filter(|_| !survived) {
                    replies.fail("the broker no longer had the reply queue when the connection was made again");
                }
            })),
        });
        replies
    }

    /// A place for the reply to one request, under a new correlation id.
    pub(crate) fn expect(self: &Arc<Self>) -> Pending {
        let id = Uuid::new_v4();
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        match &waiting.closed {
            // Nobody has dropped the receiver yet.
            Some(reason) => drop(sender.send(Err(reason.clone()))),
            None => drop(waiting.callers.insert(id, sender)),
        }
        drop(waiting);
        Pending {
            id,
            answer,
            replies: Arc::downgrade(self),
        }
    }

    /// The connection was lost. The queue outlives it, so that replies may still come once it is made again.
    pub(crate) fn lost(self: &Arc<Self>, reason: String) {
        let weak = Arc::downgrade(self);
        let grace = tokio::spawn(async move {
            // Again and again, for those who call while it is lost.
            loop {
                tokio::time::sleep(GRACE).await;
                let Some(replies) = weak.upgrade() else {
                    return;
                };
                replies.fail(&format!(
                    "{reason}; it could not be made again within {GRACE:?}"
                ));
            }
        });
        if let Some(earlier) = self.lock().grace.replace(grace.abort_handle()) {
            earlier.abort();
        }
    }

    /// The connection was made again.
    pub(crate) fn connected(&self) {
        if let Some(grace) = self.lock().grace.take() {
            grace.abort();
        }
    }

    /// The queue is consumed no more: fails the callers, and all who call from now on.
    pub(crate) fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.to_owned());
        self.connected();
        self.fail(reason);
    }

    /// The replies that callers wait for now can no longer come.
    fn fail(&self, reason: &str) {
        let callers = std::mem::take(&mut self.lock().callers);
        for caller in callers.into_values() {
            let _ = caller.send(Err(reason.to_owned()));
        }
    }

    fn arrived(&self, delivery: Delivery) {
        let id = delivery.properties.correlation_id.as_deref();
        let caller = id
            .and_then(|it| Uuid::try_parse(it).ok())
            .and_then(|it| self.lock().callers.remove(&it));
        match caller {
            // A caller that has just given up no longer takes it.
            Some(caller) => drop(caller.send(Ok(delivery))),
            None => tracing::debug!("unknown correlation id: {}", id.unwrap_or("none")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.connected();
    }
}

/// One awaited reply.
pub(crate) struct Pending {
    id: Uuid,
    answer: oneshot::Receiver<Answer>,
    replies: Weak<Replies>,
}

impl Pending {
    /// What the request carries as `correlation_id`.
    pub(crate) fn correlation_id(&self) -> String {
        self.id.to_string()
    }

    /// The reply, or why it can no longer come.
    pub(crate) async fn answer(&mut self) -> Answer {
        (&mut self.answer)
            .await
            .unwrap_or_else(|_| Err("the client was stopped".to_owned()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(replies) = self.replies.upgrade() {
            replies.lock().callers.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::amqp::ConnectOptions;

    #[tokio::test(start_paused = true)]
    async fn who_calls_while_the_connection_is_lost_waits_no_longer_than_the_grace_period() {
        let consumers = Consumers::new(ConnectOptions::new(Vec::new()), Arc::new(()));
        let replies = Replies::subscribe(&consumers, &Exchange::topic("rpc"), "test", None);
        replies.lost("the cable was cut".to_owned());
        for _ in 0..3 {
            let answer = tokio::time::timeout(GRACE + Duration::from_secs(1), async {
                replies.expect().answer().await
            });
            let reason = answer.await.expect("in time").expect_err("no reply");
            assert!(reason.contains("the cable was cut"), "{reason}");
        }
    }
}
