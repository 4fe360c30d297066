//! `once = "fleet"`: one instance of many runs a cron line.
//!
//! Every instance consumes one queue, whose single active consumer the broker chooses: that instance leads. The queue always
//! holds a [`LeaderToken`], which says what is done. The leader holds it unacknowledged; when the leader goes, or is cut off, the
//! broker gives the token to the next instance, which so knows that it leads, and what is left to do.
//!
//! Before it runs anything the leader publishes a new token and waits until the broker brings it back. That proves that it
//! leads at this moment, on a connection that works, and that it has seen every token before its own. Then it lets go of the
//! older token. The same, once in a while, keeps the token from being held for longer than the broker allows.

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
    schedule::{Plan, is_wrong},
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

/// How often the token is replaced while nothing is due. RabbitMQ closes a channel on which a delivery stays unacknowledged
/// for `consumer_timeout`, by default half an hour, and looks every minute.
const TOKEN_RENEWAL_INTERVAL: Duration = Duration::from_secs(300);

/// How long the queue of a line that nobody runs any more is kept: the most that a last run is remembered.
const QUEUE_EXPIRES_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The wait before a token is published again that could not be.
const PUBLISH_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long a leader that stops tries to say what it has done.
const FINAL_PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The place of one instance in the fleet.
pub(super) struct Candidate {
    id: String,
    queue: Queue,
    publisher: Publisher,
    consumer: Arc<QueueConsumer>,
    subscription: SubscriptionId,
    /// What the queue brings.
    inbox: mpsc::UnboundedReceiver<LeaderEvent>,
    /// The number of the latest token of its own.
    serial: u64,
    /// What it knows, which only ever grows.
    progress: Progress,
    /// What was due up to then is done, or nobody's: counts where the queue knows of no run, or of one in the far future.
    since: Timestamp,
    /// The token it holds, while it leads.
    held: Option<Acker>,
    /// Whether the queue is known to exist.
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

/// What the consumer hears.
enum LeaderEvent {
    Token(LeaderToken, Acker),
    /// It consumes again, on a new connection, or a new queue: whether what was in the queue is still there.
    Recovered(bool),
}

impl Candidate {
    /// Joins the fleet that runs `job`. Consumes when the container has started.
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
                // The instance may be leaving.
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

    /// Leads when it is its turn, until told to stop.
    pub(super) async fn serve(mut self, job: Job, mut stopping: watch::Receiver<bool>) {
        self.lead(&job, &mut stopping).await;
        self.leave().await;
    }

    /// Waits for its turn, and runs what is due. What runs is not stopped.
    async fn lead(&mut self, job: &Job, stopping: &mut watch::Receiver<bool>) {
        loop {
            let due = self.announce(job);
            tokio::select! {
                biased;
                _ = stopping.wait_for(|it| *it) => return,
                () = self.claim(job) => {}
            }
            let Some(last) = self.last(job) else {
                // The first leader of a new fleet.
                self.progress.done(self.since);
                continue;
            };
            let until = match job.plan(last) {
                // Only what was announced is run: whoever takes over then knows of it.
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
                _ = stopping.wait_for(|it| *it) => return,
                () = self.watch(job, until) => {}
            }
        }
    }

    /// The times up to this one are done with, as far as it knows.
    fn last(&mut self, job: &Job) -> Option<Timestamp> {
        let (last, now) = (self.progress.last?, job.now());
        if !is_wrong(last, now) {
            return Some(last);
        }
        if is_wrong(self.since, now) {
            // Its own clock was wrong before.
            self.since = now;
        }
        Some(self.since)
    }

    /// The time `at`, and those before it, are done with.
    fn done(&mut self, job: &Job, at: Timestamp) {
        if self.progress.last.is_some_and(|it| is_wrong(it, job.now())) {
            // So that others need not tell it from what is right.
            self.progress.last = None;
        }
        self.progress.done(at);
        self.since = self.since.max(at);
    }

    /// Puts what is due now, if anything is, into the progress that it publishes next.
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
                    "{} for {at} is given up: {MAX_ATTEMPTS} instances did not live to its end",
                    job.name(),
                );
                self.done(job, at);
                None
            }
        }
    }

    fn is_announced(&self, at: Timestamp) -> bool {
        let running = self.progress.running.as_ref();
        running.is_some_and(|it| it.at == at && it.member == self.id)
    }

    /// Publishes a token and waits for it to come back: for as long as another instance leads.
    async fn claim(&mut self, job: &Job) {
        // Whether the latest token was published when the queue was known to deliver here: it will come back.
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
                            // An earlier claim may have gone to the instance that led before.
                            break;
                        }
                    }
                    Some(LeaderEvent::Recovered(survived)) => {
                        self.recovered(job, survived);
                        leading = false;
                        break;
                    }
                    // The consumers are gone: the container ends.
                    None => return std::future::pending().await,
                }
            }
        }
    }

    /// Minds a queue that was lost with its token, and was made anew.
    fn recovered(&mut self, job: &Job, survived: bool) {
        if !survived {
            self.since = job.now();
        }
    }

    /// Learns from a token and holds it, or lets it go. Whether it is the answer to the latest claim.
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

    /// Runs the method for the time `at`, as a task of its own, and keeps its place meanwhile.
    async fn run(&mut self, job: &Job, last: Timestamp, at: Timestamp) -> ControlFlow<()> {
        let (ended, mut outcome) = oneshot::channel();
        let Some(container) = job.target.container.upgrade() else {
            return ControlFlow::Break(());
        };
        let worker = job.clone();
        container.spawn(async move {
            // Who waits may be gone.
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

    /// Waits until `until`, until its token has to be renewed, or until it learns something new.
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

    /// Publishes what it knows, until the broker has it.
    async fn publish(&mut self) {
        self.serial += 1;
        loop {
            match self.try_publish().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!("no token in {}: {error}", self.queue.name);
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
            // A token is made of texts and numbers: it has a JSON form.
            body: serde_json::to_vec(&token).unwrap_or_default().into(),
            ..Publish::default()
        };
        self.publisher
            .publish(message, Some(Retry::default()))
            .await
    }

    /// Gives its place to the next instance.
    async fn leave(mut self) {
        if self.held.as_ref().is_some_and(Acker::is_pending)
            && let Ok(Err(error)) = timeout(FINAL_PUBLISH_TIMEOUT, self.try_publish()).await
        {
            tracing::warn!(
                "what was last run could not be noted in {}: {error}",
                self.queue.name
            );
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

/// Takes one message off the I/O task.
fn deliver(inbox: &mpsc::UnboundedSender<LeaderEvent>, delivery: Delivery) {
    match serde_json::from_slice(&delivery.body) {
        Ok(token) => {
            if let Err(refused) = inbox.send(LeaderEvent::Token(token, delivery.acker.clone())) {
                drop(refused);
                delivery.acker.reject(true);
            }
        }
        Err(error) => {
            tracing::warn!("dropped a message that is no token of a cron line: {error}");
            delivery.acker.ack();
        }
    }
}
