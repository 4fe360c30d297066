//! Consumers over one connection that recovers.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    backoff::Backoff,
    channel::Channel,
    connection::Connection,
    delivery::{ConsumerTag, Sink},
    error::Error,
    options::ConnectOptions,
    outage::wait_to_reconnect,
    sync::lock,
    topology::Queue,
};

/// Uptime after which the backoff resets.
const RECONNECT_RESET_AFTER: Duration = Duration::from_secs(5);

/// Timeout of [`Consumers::stop`], longer than the timeouts of its steps.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for deleting temporary queues at a stop.
const DELETE_TIMEOUT: Duration = Duration::from_millis(400);

/// Timeout of the broker's answer to `basic.cancel`.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// A queue to consume.
#[derive(Clone)]
pub struct Subscription {
    /// Queue, declared with its bindings at each connect.
    pub queue: Queue,
    /// Limit of unacknowledged deliveries, `None` for no limit.
    pub prefetch: Option<u16>,
    /// Callback for deliveries.
    pub sink: Sink,
    /// Callback for a recovery: after a reconnect, or after the broker cancelled the consumer.
    /// Called on the task that reconnects, where it must not block.
    ///
    /// The argument is `true` if the queue still existed, with its messages; it is consumed again
    /// then. It is `false` if the queue was missing; it is declared anew and not consumed yet then.
    pub on_recovered: Option<Arc<dyn Fn(bool) + Send + Sync>>,
}

/// Identifies a subscription of [`Consumers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(u64);

/// Callbacks for the state of the connection. They must not block. By default they log.
pub trait Observer: Send + Sync {
    /// An attempt to connect, declare and consume failed. The next one follows after `retry_in`.
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        tracing::warn!("{error}; trying again in {retry_in:.1?}");
    }

    /// The connection is open, and every queue is declared and consumed. `reconnect` is `false` the
    /// first time.
    fn connected(&self, reconnect: bool) {
        if reconnect {
            tracing::info!("connected to the broker again");
        } else {
            tracing::debug!("connected to the broker");
        }
    }

    /// The connection was lost, and is about to be reopened.
    fn lost(&self, error: &Error) {
        tracing::warn!("{error}; connecting again");
    }
}

/// An observer that logs.
impl Observer for () {}

/// Consumers on one channel of one connection, with automatic recovery.
///
/// After any loss the connection is reopened, without a limit of attempts, and all queues are
/// declared and consumed as before. Deliveries that were unacknowledged at the loss are
/// redelivered; acknowledging the lost ones has no effect. Clones share the consumers, which stop
/// with the last clone.
#[derive(Clone)]
pub struct Consumers(Arc<Handle>);

struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.advance_to(Phase::Stopping);
    }
}

struct Inner {
    options: ConnectOptions,
    observer: Arc<dyn Observer>,
    /// Desired state, which the supervisor compares with the actual one.
    desired: Mutex<Desired>,
    /// Wakes the supervisor after a change of `desired`.
    changed: Notify,
    next_id: AtomicU64,
    /// Only ever increases.
    phase: watch::Sender<Phase>,
    /// Written by the supervisor.
    status: watch::Sender<Status>,
}

#[derive(Default)]
struct Desired {
    /// In the order of their addition.
    subscriptions: Vec<(SubscriptionId, Arc<Subscription>)>,
    /// Subscriptions with a consumer on this connection, from `basic.consume` until the reply to
    /// `basic.cancel`. The flag is set once no delivery may reach the sink.
    started: HashMap<SubscriptionId, Arc<AtomicBool>>,
    /// Callers of [`Consumers::cancel`] to notify.
    cancelling: Vec<oneshot::Sender<()>>,
    /// Consumers cancelled by the broker.
    cancelled_by_broker: Vec<(SubscriptionId, ConsumerTag)>,
    /// Names of the queues to delete at a graceful stop.
    temporary: Vec<String>,
    /// The current connection, for [`Consumers::kill`].
    connection: Option<Connection>,
}

impl Desired {
    /// Returns whether the subscription was added and not cancelled.
    fn contains(&self, id: SubscriptionId) -> bool {
        self.subscriptions.iter().any(|(other, _)| *other == id)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    New,
    Running,
    Stopping,
    Killed,
}

/// Progress of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Disconnected,
    /// Every queue is declared and consumed.
    Connected,
    /// The supervisor has ended.
    Ended,
}

impl Consumers {
    /// Creates consumers that connect at [`start`](Self::start).
    pub fn new(options: ConnectOptions, observer: Arc<dyn Observer>) -> Self {
        Self(Arc::new(Handle(Arc::new(Inner {
            options,
            observer,
            desired: Mutex::default(),
            changed: Notify::new(),
            next_id: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::New),
            status: watch::Sender::new(Status::Disconnected),
        }))))
    }

    /// Adds a subscription. After the start, its queue is declared and consumed in the background.
    pub fn add(&self, subscription: Subscription) -> SubscriptionId {
        self.add_with(subscription, false)
    }

    /// Like [`add`](Self::add), for a named queue of these consumers alone: a graceful stop deletes
    /// it.
    pub fn add_temporary(&self, subscription: Subscription) -> SubscriptionId {
        self.add_with(subscription, true)
    }

    fn add_with(&self, subscription: Subscription, temporary: bool) -> SubscriptionId {
        let inner = &self.0.0;
        let id = SubscriptionId(inner.next_id.fetch_add(1, Ordering::Relaxed));
        let mut desired = lock(&inner.desired);
        if temporary {
            desired.temporary.push(subscription.queue.name.clone());
        }
        desired.subscriptions.push((id, Arc::new(subscription)));
        drop(desired);
        inner.changed.notify_one();
        id
    }

    /// Connects, and waits until every queue is declared and consumed. An attempt that fails, also
    /// by a refusal of the broker, is repeated until it succeeds.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if the consumers are stopped first.
    pub async fn start(&self) -> Result<(), Error> {
        let inner = &self.0.0;
        let mut status = inner.status.subscribe();
        if inner.advance_to(Phase::Running) {
            // The task ends with a stop or the last handle.
            tokio::spawn(supervise(Arc::clone(inner)));
        }
        if *inner.phase.borrow() > Phase::Running {
            return Err(Error::Stopped);
        }
        let started = status.wait_for(|status| *status != Status::Disconnected);
        match started.await.as_deref() {
            Ok(Status::Connected) => Ok(()),
            _ => Err(Error::Stopped),
        }
    }

    /// Cancels a subscription and leaves its queue. Deliveries in flight still reach the sink, none
    /// after this returns.
    ///
    /// Waits for the broker for at most three seconds. Deliveries received later are requeued when
    /// the connection ends.
    pub async fn cancel(&self, id: SubscriptionId) {
        let inner = &self.0.0;
        let (ended, cancelled) = {
            let mut desired = lock(&inner.desired);
            desired.subscriptions.retain(|(other, _)| *other != id);
            // A subscription that is not started yet is not going to be, so there is no wait,
            // however long the supervisor waits for the broker.
            let Some(ended) = desired.started.get(&id).cloned() else {
                return;
            };
            let (sender, cancelled) = oneshot::channel();
            desired.cancelling.push(sender);
            (ended, cancelled)
        };
        inner.changed.notify_one();
        // The inner error means that the connection ended, and its consumers with it.
        if timeout(CANCEL_TIMEOUT, cancelled).await.is_err() {
            tracing::warn!("the broker has not cancelled a consumer within {CANCEL_TIMEOUT:?}");
        }
        ended.store(true, Ordering::Release);
    }

    /// Closes the connection gracefully: acknowledgements made before are sent. Takes at most two
    /// seconds.
    pub async fn stop(&self) {
        let inner = &self.0.0;
        let was_new = *inner.phase.borrow() == Phase::New;
        inner.advance_to(Phase::Stopping);
        if was_new {
            return;
        }
        let mut status = inner.status.subscribe();
        let ended = status.wait_for(|status| *status == Status::Ended);
        if timeout(STOP_TIMEOUT, ended).await.is_err() {
            self.kill();
        }
    }

    /// Drops the connection at once. The broker requeues unacknowledged deliveries.
    pub fn kill(&self) {
        let inner = &self.0.0;
        inner.advance_to(Phase::Killed);
        let connection = lock(&inner.desired).connection.take();
        if let Some(connection) = connection {
            connection.abort();
        }
    }

    /// Returns whether every queue is being consumed.
    pub fn is_connected(&self) -> bool {
        *self.0.0.status.borrow() == Status::Connected
    }
}

impl Inner {
    /// Advances to `phase`. Returns `false` if it was reached before.
    fn advance_to(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|current| {
            let advanced = *current < phase;
            *current = phase.max(*current);
            advanced
        })
    }

    /// Waits for a stop.
    async fn stop_requested(&self) {
        let mut phase = self.phase.subscribe();
        // Never fails: `self` owns the sender.
        let _ = phase.wait_for(|phase| *phase > Phase::Running).await;
    }

    /// Marks a subscription as started, before `basic.consume` is sent. Returns `None` if it was
    /// cancelled.
    fn mark_started(&self, id: SubscriptionId) -> Option<Arc<AtomicBool>> {
        let mut desired = lock(&self.desired);
        desired.contains(id).then(|| {
            let ended = Arc::new(AtomicBool::new(false));
            desired.started.insert(id, Arc::clone(&ended));
            ended
        })
    }

    /// Forgets the connection and its consumers. Returns the connection unless it was killed.
    fn disconnect(&self) -> Option<Connection> {
        let mut desired = lock(&self.desired);
        // Dropping the senders notifies the callers: the consumers ended with the connection.
        desired.cancelling.clear();
        desired.cancelled_by_broker.clear();
        desired.started.clear();
        desired.connection.take()
    }

    fn set_status(&self, status: Status) {
        self.status.send_if_modified(|current| {
            let modified = *current != status && *current != Status::Ended;
            if modified {
                *current = status;
            }
            modified
        });
    }
}

/// Sets [`Status::Ended`] on drop, also when the supervisor is dropped with its runtime.
struct EndOnDrop(Arc<Inner>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.disconnect() {
            connection.abort();
        }
        // Sinks may own the owner of the consumers: dropped without the lock.
        let subscriptions = std::mem::take(&mut lock(&self.0.desired).subscriptions);
        drop(subscriptions);
        self.0.set_status(Status::Ended);
    }
}

/// Reopens the connection until a stop.
async fn supervise(inner: Arc<Inner>) {
    let guard = EndOnDrop(Arc::clone(&inner));
    let mut backoff = Backoff::default();
    let mut history = History::default();
    loop {
        let mut connected_at = None;
        let error = tokio::select! {
            error = run_session(&inner, &mut history, &mut connected_at) => error,
            () = inner.stop_requested() => break,
        };
        inner.set_status(Status::Disconnected);
        if let Some(connection) = inner.disconnect() {
            // Still open if only the channel was closed.
            connection.close().await;
        }
        let delay = match connected_at {
            Some(connected_at) => {
                if Instant::now().duration_since(connected_at) >= RECONNECT_RESET_AFTER {
                    backoff.reset();
                }
                inner.observer.lost(&error);
                backoff.next_reconnect(&error)
            }
            None => {
                let delay = backoff.next_reconnect(&error);
                inner.observer.connection_error(&error, delay);
                delay
            }
        };
        tokio::select! {
            () = wait_to_reconnect(&inner.options.uris, &error, delay) => {}
            () = inner.stop_requested() => break,
        }
    }
    let killed = *inner.phase.borrow() == Phase::Killed;
    if let Some(connection) = inner.disconnect() {
        if killed {
            connection.abort();
        } else {
            let temporary = std::mem::take(&mut lock(&inner.desired).temporary);
            // Past the timeout, the queues expire.
            let _ = timeout(DELETE_TIMEOUT, delete_queues(&connection, &temporary)).await;
            connection.close().await;
        }
    }
    drop(guard);
}

async fn delete_queues(connection: &Connection, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let channel = connection.channel().await?;
    for name in names {
        channel.queue_delete(name).await?;
    }
    Ok(())
}

/// State that outlives a connection.
#[derive(Default)]
struct History {
    /// Whether there was a connection before.
    connected: bool,
    /// Subscriptions that were consumed before, and may have lost their queue.
    consumed: HashSet<SubscriptionId>,
    /// Subscriptions among them with a missing queue that was not reported yet. It is kept over
    /// failed attempts, which may have declared the queue.
    missing: HashSet<SubscriptionId>,
}

/// Runs one connection from opening to its end, and returns the reason.
async fn run_session(
    inner: &Arc<Inner>,
    history: &mut History,
    connected_at: &mut Option<Instant>,
) -> Error {
    let connection = match Connection::open(&inner.options).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    lock(&inner.desired).connection = Some(connection.clone());
    let channel = match connection.channel().await {
        Ok(channel) => channel,
        Err(error) => return error,
    };
    let mut session = Session {
        inner,
        connection: &connection,
        channel: &channel,
        active: HashMap::new(),
        prefetch: 0,
    };
    loop {
        if let Err(error) = session.reconcile(history).await {
            return error;
        }
        if connected_at.is_none() {
            *connected_at = Some(Instant::now());
            inner.set_status(Status::Connected);
            inner.observer.connected(history.connected);
            history.connected = true;
        }
        tokio::select! {
            error = channel.closed() => return error,
            () = inner.changed.notified() => {}
        }
    }
}

/// The active consumers of one connection.
struct Session<'a> {
    inner: &'a Arc<Inner>,
    connection: &'a Connection,
    channel: &'a Channel,
    active: HashMap<SubscriptionId, ConsumerTag>,
    /// Prefetch count that applies to the next consumer of the channel.
    prefetch: u16,
}

impl Session<'_> {
    /// Reconciles the active consumers with the desired subscriptions.
    async fn reconcile(&mut self, history: &mut History) -> Result<(), Error> {
        let (desired, cancelled, cancelling) = {
            let mut desired = lock(&self.inner.desired);
            (
                desired.subscriptions.clone(),
                std::mem::take(&mut desired.cancelled_by_broker),
                std::mem::take(&mut desired.cancelling),
            )
        };
        for (id, tag) in cancelled {
            // A consumer that was started again since then has another tag.
            if self.active.get(&id) == Some(&tag) {
                tracing::warn!("the broker cancelled consumer {tag}: was its queue deleted?");
                self.active.remove(&id);
            }
        }
        let undesired: Vec<SubscriptionId> = self
            .active
            .keys()
            .copied()
            .filter(|id| desired.iter().all(|(desired, _)| desired != id))
            .collect();
        for id in undesired {
            if let Some(tag) = self.active.remove(&id) {
                self.channel.cancel(&tag).await?;
                lock(&self.inner.desired).started.remove(&id);
            }
            history.consumed.remove(&id);
            history.missing.remove(&id);
        }
        for caller in cancelling {
            // Fails if the caller has reached its timeout.
            let _ = caller.send(());
        }
        self.start_missing(desired, history).await
    }

    /// Declares the queues of all subscriptions without a consumer, then consumes them.
    async fn start_missing(
        &mut self,
        desired: Vec<(SubscriptionId, Arc<Subscription>)>,
        history: &mut History,
    ) -> Result<(), Error> {
        let mut declared = Vec::new();
        for (id, subscription) in desired {
            if self.active.contains_key(&id) || !lock(&self.inner.desired).contains(id) {
                continue;
            }
            let recovering = subscription.on_recovered.is_some() && history.consumed.contains(&id);
            let survived = match recovering {
                true => Some(
                    !history.missing.contains(&id)
                        && self.queue_exists(&subscription.queue).await?,
                ),
                false => None,
            };
            if survived == Some(false) {
                history.missing.insert(id);
            }
            let queue = self
                .channel
                .declare_with_bindings(&subscription.queue)
                .await?;
            if let (Some(on_recovered), Some(false)) = (&subscription.on_recovered, survived) {
                // Reported before consuming: messages sent from now on are not lost.
                history.missing.remove(&id);
                on_recovered(false);
            }
            self.set_prefetch(&subscription).await?;
            declared.push((id, subscription, queue, survived));
        }
        for (id, subscription, queue, survived) in declared {
            self.set_prefetch(&subscription).await?;
            let Some(ended) = self.inner.mark_started(id) else {
                continue;
            };
            let tag = self.consume(id, &subscription, &queue, ended).await?;
            self.active.insert(id, tag);
            history.consumed.insert(id);
            if let (Some(on_recovered), Some(true)) = (&subscription.on_recovered, survived) {
                on_recovered(true);
            }
        }
        Ok(())
    }

    /// Sends `basic.qos` if the prefetch count differs from that of the previous consumer. It
    /// applies to the consumers started after it.
    async fn set_prefetch(&mut self, subscription: &Subscription) -> Result<(), Error> {
        let prefetch = subscription.prefetch.unwrap_or(0);
        if prefetch != self.prefetch {
            self.channel.qos(prefetch).await?;
            self.prefetch = prefetch;
        }
        Ok(())
    }

    async fn consume(
        &self,
        id: SubscriptionId,
        subscription: &Subscription,
        queue: &str,
        ended: Arc<AtomicBool>,
    ) -> Result<ConsumerTag, Error> {
        let sink = Arc::clone(&subscription.sink);
        // Weak, as `inner` owns the connection, and that its consumers.
        let inner = Arc::downgrade(self.inner);
        self.channel
            .consume(
                queue,
                move |delivery| {
                    // A dropped delivery is requeued when the connection ends.
                    if !ended.load(Ordering::Acquire) {
                        sink(delivery);
                    }
                },
                move |tag| {
                    if let Some(inner) = inner.upgrade() {
                        lock(&inner.desired).cancelled_by_broker.push((id, tag));
                        inner.changed.notify_one();
                    }
                },
            )
            .await
    }

    /// Returns whether a queue exists, checked on a channel of its own, which a missing queue
    /// closes.
    async fn queue_exists(&self, queue: &Queue) -> Result<bool, Error> {
        let passive = Queue {
            passive: true,
            ..Queue::new(queue.name.clone())
        };
        let channel = self.connection.channel().await?;
        match channel.queue_declare(&passive).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            // It exists, exclusive to a connection whose loss the broker has not noticed yet (405).
            Err(Error::ChannelClosed { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers")
            .field("uris", &self.0.0.options.uris)
            .field("status", &*self.0.0.status.borrow())
            .finish_non_exhaustive()
    }
}
