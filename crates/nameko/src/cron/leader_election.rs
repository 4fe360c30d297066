//! Leader election for `once = "fleet"`: one of many instances runs the method.
//!
//! All instances consume the same queue, and the broker selects its single active consumer: the
//! leader. The queue always contains a [`LeaderToken`] with the progress of the schedule. The
//! leader holds it unacknowledged. When the leader stops or disconnects, the broker delivers the
//! token to the next instance, which thereby becomes the leader and learns the progress.
//!
//! Before every run, the leader publishes a new token and waits for its delivery. This proves that
//! the instance leads at this moment, on a working connection, and has received all earlier tokens.
//! Then it acknowledges the older token. The token is also renewed periodically, before the
//! broker's acknowledgement timeout.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    job::Job,
    leader_token::{LeaderToken, MAX_ATTEMPTS, Progress},
    schedule::{Plan, exceeds_clock_skew},
};
use crate::{
    amqp::{
        Acker, Delivery, Properties, Publish, PublishError, Publisher, Queue, Retry, Subscription,
        SubscriptionId, Table, Value,
    },
    container::Container,
    error::Result,
    queue_consumer::QueueConsumer,
    serialization::{JSON, UTF_8},
};

/// Renewal interval of the token. RabbitMQ closes a channel with a delivery that stays
/// unacknowledged for `consumer_timeout`, by default 30 minutes, checked every minute.
const TOKEN_RENEWAL_INTERVAL: Duration = Duration::from_secs(300);

/// Expiry of a queue without consumers, and so of the record of the last run.
const QUEUE_EXPIRES_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Delay before retrying to publish a token.
const PUBLISH_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Timeout for publishing the progress when a leader stops.
const FINAL_PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A member of the leader election.
pub(super) struct Candidate {
    id: String,
    queue: Queue,
    publisher: Publisher,
    consumer: Arc<QueueConsumer>,
    subscription: SubscriptionId,
    /// Events from the consumer.
    inbox: mpsc::UnboundedReceiver<LeaderEvent>,
    /// Serial number of the last published token.
    serial: u64,
    /// The latest known progress. Never decreases.
    progress: Progress,
    /// Start of the schedule if the queue has no record of a run, or one too far in the future.
    since: Timestamp,
    /// The unacknowledged token of a leader.
    held: Option<Acker>,
    /// Whether the queue was declared successfully.
    declared: bool,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("queue", &self.queue.name)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// An event of the consumer.
enum LeaderEvent {
    Token(LeaderToken, Acker),
    /// The consumer recovered, on a new connection or a new queue; `true` if the queue survived
    /// with its messages.
    Recovered(bool),
}

impl Candidate {
    /// Joins the election of `job`. Consumes once the container has started.
    pub(super) fn join(container: &Container, job: &Job) -> Result<Self> {
        let consumer = QueueConsumer::of(container)?;
        let queue = Queue {
            arguments: Table::from_iter([
                ("x-single-active-consumer".to_owned(), Value::Bool(true)),
                (
                    "x-expires".to_owned(),
                    Value::Int(
                        QUEUE_EXPIRES_AFTER
                            .as_millis()
                            .try_into()
                            .unwrap_or(i64::MAX),
                    ),
                ),
            ]),
            ..Queue::new(job.queue_name(container.service_name()))
        };
        let (sender, inbox) = mpsc::unbounded_channel();
        let recovered = sender.clone();
        let subscription = consumer.add(Subscription {
            queue: queue.clone(),
            prefetch: None,
            sink: Arc::new(move |delivery| deliver(&sender, delivery)),
            on_recovered: Some(Arc::new(move |survived| {
                // Fails if this instance is leaving.
                let _ = recovered.send(LeaderEvent::Recovered(survived));
            })),
        })?;
        Ok(Self {
            id: Uuid::new_v4().to_string(),
            queue,
            publisher: Publisher::shared(&container.config().connect_options()?),
            consumer,
            subscription,
            inbox,
            serial: 0,
            progress: Progress::default(),
            since: job.now(),
            held: None,
            declared: false,
        })
    }

    /// Runs the job whenever this instance leads, until `stopping` is set.
    pub(super) async fn serve(mut self, job: Job, mut stopping: watch::Receiver<bool>) {
        self.lead(&job, &mut stopping).await;
        self.leave().await;
    }

    /// Waits for the leadership and runs due times. A running method is not interrupted.
    async fn lead(&mut self, job: &Job, stopping: &mut watch::Receiver<bool>) {
        loop {
            let due = self.announce(job);
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.claim(job) => {}
            }
            let Some(last) = self.last(job) else {
                // The first leader of a new queue.
                self.progress.done(self.since);
                continue;
            };
            let until = match job.plan(last) {
                // Only announced times are run, so that the next leader knows about the attempt.
                Plan::Run(at) if due == Some(at) && self.is_announced(at) => {
                    if self.run(job, last, at).await.is_break() {
                        return;
                    }
                    continue;
                }
                Plan::Run(_) => continue,
                Plan::Wait(until) => Some(until),
                Plan::Never => None,
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.watch(job, until) => {}
            }
        }
    }

    /// Returns the last time that is done.
    fn last(&mut self, job: &Job) -> Option<Timestamp> {
        let (last, now) = (self.progress.last?, job.now());
        if !exceeds_clock_skew(last, now) {
            return Some(last);
        }
        if exceeds_clock_skew(self.since, now) {
            // Noted while the clock of this instance was wrong.
            self.since = now;
        }
        Some(self.since)
    }

    /// Records that all times up to `at` are done.
    fn done(&mut self, job: &Job, at: Timestamp) {
        if self
            .progress
            .last
            .is_some_and(|last| exceeds_clock_skew(last, job.now()))
        {
            // Cleared, as `Progress::done` keeps the maximum.
            self.progress.last = None;
        }
        self.progress.done(at);
        self.since = self.since.max(at);
    }

    /// Adds the due time, if any, to the progress that is published next.
    fn announce(&mut self, job: &Job) -> Option<Timestamp> {
        let last = self.last(job)?;
        let Plan::Run(at) = job.plan(last) else {
            return None;
        };
        match self.progress.attempt(at, &self.id) {
            Some(attempt) => {
                self.progress.running = Some(attempt);
                Some(at)
            }
            None => {
                tracing::error!(
                    "giving up on {} for {at}: {MAX_ATTEMPTS} instances stopped during the run",
                    job.name(),
                );
                self.done(job, at);
                None
            }
        }
    }

    fn is_announced(&self, at: Timestamp) -> bool {
        let running = self.progress.running.as_ref();
        running.is_some_and(|attempt| attempt.at == at && attempt.member == self.id)
    }

    /// Publishes a token and waits for its delivery, as long as another instance leads.
    async fn claim(&mut self, job: &Job) {
        // Whether the last token was published while this instance was known to lead, so that it
        // will be delivered.
        let mut leading = false;
        loop {
            self.publish().await;
            loop {
                match self.inbox.recv().await {
                    Some(LeaderEvent::Token(token, acker)) => {
                        if self.take(token, acker) {
                            return;
                        }
                        if !std::mem::replace(&mut leading, true) {
                            // The earlier token may have been delivered to the previous leader.
                            break;
                        }
                    }
                    Some(LeaderEvent::Recovered(survived)) => {
                        self.recovered(job, survived);
                        leading = false;
                        break;
                    }
                    // The consumers are gone, since the container is ending.
                    None => return std::future::pending().await,
                }
            }
        }
    }

    /// Restarts the schedule from now if the queue was lost with its token and redeclared.
    fn recovered(&mut self, job: &Job, survived: bool) {
        if !survived {
            self.since = job.now();
        }
    }

    /// Merges the progress of a token and keeps the newer of both tokens. Returns `true` if it is
    /// the last published one.
    fn take(&mut self, token: LeaderToken, acker: Acker) -> bool {
        if !acker.is_pending() {
            return false;
        }
        let answer = token.member == self.id && token.serial == self.serial;
        let held = self.held.take().filter(Acker::is_pending);
        if token.progress < self.progress && held.is_some() {
            acker.ack();
            self.held = held;
            return answer;
        }
        if let Some(older) = held {
            older.ack();
        }
        self.progress = token.progress.max(std::mem::take(&mut self.progress));
        self.held = Some(acker);
        answer
    }

    /// Runs the method for the time `at` in a new task, and keeps the leadership meanwhile.
    async fn run(&mut self, job: &Job, last: Timestamp, at: Timestamp) -> ControlFlow<()> {
        let (ended, mut outcome) = oneshot::channel();
        let Some(container) = job.target.container.upgrade() else {
            return ControlFlow::Break(());
        };
        let worker = job.clone();
        container.spawn(async move {
            // Fails if the receiver is gone.
            let _ = ended.send(worker.run(last, at).await);
        });
        drop(container);
        loop {
            let renew = sleep_until(Instant::now() + TOKEN_RENEWAL_INTERVAL);
            let event = tokio::select! {
                ended = &mut outcome => {
                    let flow = ended.unwrap_or(ControlFlow::Break(()));
                    if flow.is_continue() {
                        self.done(job, at);
                    }
                    return flow;
                }
                event = self.inbox.recv() => event,
                () = renew => Some(LeaderEvent::Recovered(true)),
            };
            match event {
                Some(LeaderEvent::Token(token, acker)) => {
                    self.take(token, acker);
                }
                Some(LeaderEvent::Recovered(survived)) => {
                    self.recovered(job, survived);
                    self.publish().await;
                }
                None => {}
            }
        }
    }

    /// Waits until `until`, the renewal of the token, or new progress.
    async fn watch(&mut self, job: &Job, until: Option<Timestamp>) {
        let renew = sleep_until(Instant::now() + TOKEN_RENEWAL_INTERVAL);
        tokio::pin!(renew);
        let due = job.reach(until);
        tokio::pin!(due);
        loop {
            let event = tokio::select! {
                () = &mut due => return,
                () = &mut renew => return,
                event = self.inbox.recv() => event,
            };
            match event {
                Some(LeaderEvent::Token(token, acker)) => {
                    let known = self.progress.last;
                    self.take(token, acker);
                    if self.progress.last != known {
                        return;
                    }
                }
                Some(LeaderEvent::Recovered(survived)) => return self.recovered(job, survived),
                None => return std::future::pending().await,
            }
        }
    }

    /// Publishes the progress; retries until the broker confirms it.
    async fn publish(&mut self) {
        self.serial += 1;
        loop {
            match self.try_publish().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(
                        "cannot publish the leader token to {}: {error}",
                        self.queue.name
                    );
                    self.declared = false;
                    sleep(PUBLISH_RETRY_DELAY).await;
                }
            }
        }
    }

    async fn try_publish(&mut self) -> Result<(), PublishError> {
        if !self.declared {
            let queues = std::slice::from_ref(&self.queue);
            self.publisher.declare(&[], queues).await?;
            self.declared = true;
        }
        let token = LeaderToken {
            member: self.id.clone(),
            serial: self.serial,
            progress: self.progress.clone(),
        };
        let message = Publish {
            routing_key: self.queue.name.clone(),
            mandatory: true,
            properties: Properties {
                content_type: Some(JSON.into()),
                content_encoding: Some(UTF_8.into()),
                delivery_mode: Some(2),
                ..Properties::default()
            },
            // Cannot fail: a token consists of strings and numbers.
            body: serde_json::to_vec(&token).unwrap_or_default().into(),
            ..Publish::default()
        };
        self.publisher
            .publish(message, Some(Retry::default()))
            .await
    }

    /// Passes the leadership to the next instance.
    async fn leave(mut self) {
        if self.held.as_ref().is_some_and(Acker::is_pending)
            && let Ok(Err(error)) = timeout(FINAL_PUBLISH_TIMEOUT, self.try_publish()).await
        {
            tracing::warn!("cannot record the last run in {}: {error}", self.queue.name);
        }
        self.consumer.cancel(self.subscription).await;
        let held = self.held.take();
        self.inbox.close();
        while let Some(event) = self.inbox.recv().await {
            if let LeaderEvent::Token(_, acker) = event {
                acker.reject(true);
            }
        }
        if let Some(held) = held {
            held.reject(true);
        }
    }
}

/// Forwards a delivery from the I/O task to the inbox.
fn deliver(inbox: &mpsc::UnboundedSender<LeaderEvent>, delivery: Delivery) {
    match serde_json::from_slice(&delivery.body) {
        Ok(token) => {
            if let Err(refused) = inbox.send(LeaderEvent::Token(token, delivery.acker.clone())) {
                drop(refused);
                delivery.acker.reject(true);
            }
        }
        Err(error) => {
            tracing::warn!("dropped a message that is not a leader token: {error}");
            delivery.acker.ack();
        }
    }
}
