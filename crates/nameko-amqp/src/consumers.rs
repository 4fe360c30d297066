//! Everything that a container consumes, over one connection that is kept alive.

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
    time::{Instant, sleep, timeout},
};

use crate::{
    backoff::Backoff,
    channel::Channel,
    connection::Connection,
    delivery::{ConsumerTag, Sink},
    error::Error,
    options::ConnectOptions,
    sync::lock,
    topology::Queue,
};

/// A connection that lived as long as this was sound: the next wait begins small again.
const RECONNECT_RESET_AFTER: Duration = Duration::from_secs(5);

/// More than the polite close of a connection takes.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the broker may take to end a consumer.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// A queue to consume.
#[derive(Clone)]
pub struct Subscription {
    /// The queue, declared with its bindings at each connect.
    pub queue: Queue,
    /// How many unacknowledged deliveries it may hold, `None` for any number.
    pub prefetch: Option<u16>,
    /// Where deliveries go.
    pub sink: Sink,
    /// Called on a new connection, or after the broker had ended the consumer: with `true` when the queue had survived, with what
    /// was in it, and is consumed again; with `false` when it had not and is declared anew, before it is consumed. It must not
    /// block.
    pub on_recovered: Option<Arc<dyn Fn(bool) + Send + Sync>>,
}

/// Names a subscription of a [`Consumers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(u64);

/// Is told how the connection fares. Its methods must not block; by default they log.
pub trait Observer: Send + Sync {
    /// An attempt to connect, or to declare and consume, failed. The next is made after `retry_in`.
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        tracing::warn!("{error}; trying again in {retry_in:.1?}");
    }

    /// Connected, every queue declared and consumed; `reconnect` tells that it was so before.
    fn connected(&self, reconnect: bool) {
        if reconnect {
            tracing::info!("connected to the broker again");
        } else {
            tracing::debug!("connected to the broker");
        }
    }

    /// The connection was lost; it is made again.
    fn lost(&self, error: &Error) {
        tracing::warn!("{error}; connecting again");
    }
}

/// Logs.
impl Observer for () {}

/// One connection with one channel for any number of consumers, kept alive: whatever ends it, it is made again, for ever,
/// with all queues declared and consumed as before. Clones are the same consumers; when the last is dropped they stop.
///
/// What was not acknowledged when a connection was lost is delivered again; acknowledging the delivery of the lost connection
/// does nothing.
#[derive(Clone)]
pub struct Consumers(Arc<Handle>);

struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.ask(Phase::Stopping);
    }
}

struct Inner {
    options: ConnectOptions,
    observer: Arc<dyn Observer>,
    /// What users want; the supervisor compares it with what is.
    wanted: Mutex<Wanted>,
    /// Wakes the supervisor: `wanted` has changed.
    changed: Notify,
    next_id: AtomicU64,
    /// Only ever goes up.
    phase: watch::Sender<Phase>,
    /// Set by the supervisor.
    link: watch::Sender<Link>,
}

#[derive(Default)]
struct Wanted {
    /// In the order they were added.
    subscriptions: Vec<(SubscriptionId, Arc<Subscription>)>,
    /// What the broker was asked to consume on this connection, until it has ended that; true: no delivery reaches its
    /// sink any more.
    begun: HashMap<SubscriptionId, Arc<AtomicBool>>,
    /// Who waits for a consumer to be ended.
    cancelling: Vec<oneshot::Sender<()>>,
    /// Consumers that the broker ended.
    ended: Vec<(SubscriptionId, ConsumerTag)>,
    /// The connection, while there is one, so that it can be killed.
    connection: Option<Connection>,
}

impl Wanted {
    /// Whether it was added and not cancelled since.
    fn has(&self, id: SubscriptionId) -> bool {
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

/// How far the supervisor got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not connected.
    Down,
    /// Every queue is declared and consumed.
    Up,
    /// The supervisor has ended.
    Over,
}

impl Consumers {
    /// Consumers of the broker at `options`; they connect at [`start`](Self::start).
    pub fn new(options: ConnectOptions, observer: Arc<dyn Observer>) -> Self {
        Self(Arc::new(Handle(Arc::new(Inner {
            options,
            observer,
            wanted: Mutex::default(),
            changed: Notify::new(),
            next_id: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::New),
            link: watch::Sender::new(Link::Down),
        }))))
    }

    /// Adds a subscription, before the start or while running: then it is declared and consumed as soon as can be.
    pub fn add(&self, subscription: Subscription) -> SubscriptionId {
        let inner = &self.0.0;
        let id = SubscriptionId(inner.next_id.fetch_add(1, Ordering::Relaxed));
        lock(&inner.wanted)
            .subscriptions
            .push((id, Arc::new(subscription)));
        inner.changed.notify_one();
        id
    }

    /// Connects; resolves when every queue is declared and consumed. A broker that is away, or refuses, is tried again until
    /// it works.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when stopped meanwhile.
    pub async fn start(&self) -> Result<(), Error> {
        let inner = &self.0.0;
        let mut link = inner.link.subscribe();
        if inner.ask(Phase::Running) {
            // Ends when asked to stop or when the last handle is dropped.
            tokio::spawn(supervise(Arc::clone(inner)));
        }
        if *inner.phase.borrow() > Phase::Running {
            return Err(Error::Stopped);
        }
        match link.wait_for(|link| *link != Link::Down).await.as_deref() {
            Ok(Link::Up) => Ok(()),
            _ => Err(Error::Stopped),
        }
    }

    /// Ends a subscription; the queue is left. Deliveries that come until the broker has ended it still reach the sink, none
    /// after this resolves. Waits for the broker for three seconds at most: what comes later goes back to the queue when the
    /// connection ends.
    pub async fn cancel(&self, id: SubscriptionId) {
        let inner = &self.0.0;
        let (over, cancelled) = {
            let mut wanted = lock(&inner.wanted);
            wanted.subscriptions.retain(|(other, _)| *other != id);
            // What was not begun will not be, however long the broker takes for what it was asked before.
            let Some(over) = wanted.begun.get(&id).cloned() else {
                return;
            };
            let (done, cancelled) = oneshot::channel();
            wanted.cancelling.push(done);
            (over, cancelled)
        };
        inner.changed.notify_one();
        // An error inside: the connection ended, and its consumers with it.
        if timeout(CANCEL_TIMEOUT, cancelled).await.is_err() {
            tracing::warn!("the broker has not ended a consumer within {CANCEL_TIMEOUT:?}");
        }
        over.store(true, Ordering::Release);
    }

    /// Closes channel and connection politely: acknowledgements made before are sent first. Takes about a second at most.
    pub async fn stop(&self) {
        let inner = &self.0.0;
        let was_new = *inner.phase.borrow() == Phase::New;
        inner.ask(Phase::Stopping);
        if was_new {
            return;
        }
        let mut link = inner.link.subscribe();
        let over = link.wait_for(|link| *link == Link::Over);
        if timeout(STOP_TIMEOUT, over).await.is_err() {
            self.kill();
        }
    }

    /// Drops the connection at once: unacknowledged deliveries go back to their queues.
    pub fn kill(&self) {
        let inner = &self.0.0;
        inner.ask(Phase::Killed);
        let connection = lock(&inner.wanted).connection.take();
        if let Some(connection) = connection {
            connection.abort();
        }
    }

    /// Whether everything is consumed right now.
    pub fn is_connected(&self) -> bool {
        *self.0.0.link.borrow() == Link::Up
    }
}

impl Inner {
    /// Goes on to `phase`; `false` if it was there or further.
    fn ask(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let further = *now < phase;
            *now = phase.max(*now);
            further
        })
    }

    /// Resolves when asked to stop.
    async fn stop_asked(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`.
        let _ = phase.wait_for(|phase| *phase > Phase::Running).await;
    }

    /// Notes that the broker is being asked to consume a subscription; none where it was cancelled meanwhile.
    fn begin(&self, id: SubscriptionId) -> Option<Arc<AtomicBool>> {
        let mut wanted = lock(&self.wanted);
        wanted.has(id).then(|| {
            let over = Arc::new(AtomicBool::new(false));
            wanted.begun.insert(id, Arc::clone(&over));
            over
        })
    }

    /// Takes the connection back from where it can be killed.
    fn disconnect(&self) -> Option<Connection> {
        let mut wanted = lock(&self.wanted);
        // Who waits for a consumer to end need wait no more.
        wanted.cancelling.clear();
        wanted.ended.clear();
        wanted.begun.clear();
        wanted.connection.take()
    }

    fn set_link(&self, link: Link) {
        self.link.send_if_modified(|now| {
            let modified = *now != link && *now != Link::Over;
            if modified {
                *now = link;
            }
            modified
        });
    }
}

/// Says that the supervisor has ended, also when it is dropped with its runtime.
struct OverOnDrop(Arc<Inner>);

impl Drop for OverOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.disconnect() {
            connection.abort();
        }
        // Sinks may hold whoever holds the consumers.
        let subscriptions = std::mem::take(&mut lock(&self.0.wanted).subscriptions);
        drop(subscriptions);
        self.0.set_link(Link::Over);
    }
}

/// Keeps the connection alive until asked to stop.
async fn supervise(inner: Arc<Inner>) {
    let over = OverOnDrop(Arc::clone(&inner));
    let mut backoff = Backoff::default();
    let mut history = History::default();
    loop {
        let mut up_since = None;
        let error = tokio::select! {
            error = session(&inner, &mut history, &mut up_since) => error,
            () = inner.stop_asked() => break,
        };
        inner.set_link(Link::Down);
        if let Some(connection) = inner.disconnect() {
            // It may still be open, when only the channel was closed.
            connection.close().await;
        }
        match up_since {
            Some(since) => {
                if Instant::now().duration_since(since) >= RECONNECT_RESET_AFTER {
                    backoff.reset();
                }
                inner.observer.lost(&error);
                tokio::select! {
                    () = sleep(backoff.next()) => {}
                    () = inner.stop_asked() => break,
                }
            }
            None => {
                let wait = backoff.next();
                inner.observer.connection_error(&error, wait);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = inner.stop_asked() => break,
                }
            }
        }
    }
    let killed = *inner.phase.borrow() == Phase::Killed;
    if let Some(connection) = inner.disconnect() {
        if killed {
            connection.abort();
        } else {
            connection.close().await;
        }
    }
    drop(over);
}

/// What outlives a connection.
#[derive(Default)]
struct History {
    /// It was connected before.
    connected: bool,
    /// What was consumed before, and so may have lost its queue.
    consumed: HashSet<SubscriptionId>,
    /// Of those, what had lost its queue and was not told so yet. An attempt that failed may have made the queue anew.
    gone: HashSet<SubscriptionId>,
}

/// One connection, from connecting to its end. Returns why it ended.
async fn session(
    inner: &Arc<Inner>,
    history: &mut History,
    up_since: &mut Option<Instant>,
) -> Error {
    let connection = match Connection::open(&inner.options).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    lock(&inner.wanted).connection = Some(connection.clone());
    let channel = match connection.channel().await {
        Ok(channel) => channel,
        Err(error) => return error,
    };
    let mut consuming = Consuming {
        inner,
        connection: &connection,
        channel: &channel,
        live: HashMap::new(),
        prefetch: 0,
    };
    loop {
        if let Err(error) = consuming.reconcile(history).await {
            return error;
        }
        if up_since.is_none() {
            *up_since = Some(Instant::now());
            inner.set_link(Link::Up);
            inner.observer.connected(history.connected);
            history.connected = true;
        }
        tokio::select! {
            error = channel.closed() => return error,
            () = inner.changed.notified() => {}
        }
    }
}

/// What is consumed on one channel.
struct Consuming<'a> {
    inner: &'a Arc<Inner>,
    connection: &'a Connection,
    channel: &'a Channel,
    live: HashMap<SubscriptionId, ConsumerTag>,
    /// The prefetch that the channel gives the next consumer.
    prefetch: u16,
}

impl Consuming<'_> {
    /// Makes what is consumed what is wanted.
    async fn reconcile(&mut self, history: &mut History) -> Result<(), Error> {
        let (wanted, ended, cancelling) = {
            let mut wanted = lock(&self.inner.wanted);
            (
                wanted.subscriptions.clone(),
                std::mem::take(&mut wanted.ended),
                std::mem::take(&mut wanted.cancelling),
            )
        };
        for (id, tag) in ended {
            // One that was ended and is consumed again already has another tag.
            if self.live.get(&id) == Some(&tag) {
                tracing::warn!("the broker ended consumer {tag}: was its queue deleted?");
                self.live.remove(&id);
            }
        }
        let unwanted: Vec<SubscriptionId> = self
            .live
            .keys()
            .copied()
            .filter(|id| wanted.iter().all(|(wanted, _)| wanted != id))
            .collect();
        for id in unwanted {
            if let Some(tag) = self.live.remove(&id) {
                self.channel.cancel(&tag).await?;
                lock(&self.inner.wanted).begun.remove(&id);
            }
            history.consumed.remove(&id);
            history.gone.remove(&id);
        }
        for done in cancelling {
            // Who waited may have given up.
            let _ = done.send(());
        }
        self.begin(wanted, history).await
    }

    /// Declares what is new, then consumes it.
    async fn begin(
        &mut self,
        wanted: Vec<(SubscriptionId, Arc<Subscription>)>,
        history: &mut History,
    ) -> Result<(), Error> {
        let mut declared = Vec::new();
        for (id, subscription) in wanted {
            if self.live.contains_key(&id) || !lock(&self.inner.wanted).has(id) {
                continue;
            }
            let recovering = subscription.on_recovered.is_some() && history.consumed.contains(&id);
            let survived = match recovering {
                true => {
                    Some(!history.gone.contains(&id) && self.survived(&subscription.queue).await?)
                }
                false => None,
            };
            if survived == Some(false) {
                history.gone.insert(id);
            }
            let queue = self.channel.declare_whole(&subscription.queue).await?;
            if let (Some(on_recovered), Some(false)) = (&subscription.on_recovered, survived) {
                // Now, not when it is consumed: what is sent to it from here on is not lost.
                history.gone.remove(&id);
                on_recovered(false);
            }
            self.set_prefetch(&subscription).await?;
            declared.push((id, subscription, queue, survived));
        }
        for (id, subscription, queue, survived) in declared {
            self.set_prefetch(&subscription).await?;
            let Some(over) = self.inner.begin(id) else {
                continue;
            };
            let tag = self.consume(id, &subscription, &queue, over).await?;
            self.live.insert(id, tag);
            history.consumed.insert(id);
            if let (Some(on_recovered), Some(true)) = (&subscription.on_recovered, survived) {
                on_recovered(true);
            }
        }
        Ok(())
    }

    /// The broker keeps one prefetch for the consumers that begin after it, so it is sent when it changes.
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
        over: Arc<AtomicBool>,
    ) -> Result<ConsumerTag, Error> {
        let sink = Arc::clone(&subscription.sink);
        // A channel holds its consumers, so this must not hold the consumers in turn.
        let inner = Arc::downgrade(self.inner);
        self.channel
            .consume(
                queue,
                move |delivery| {
                    // One that is dropped goes back to its queue when the connection ends.
                    if !over.load(Ordering::Acquire) {
                        sink(delivery);
                    }
                },
                move |tag| {
                    if let Some(inner) = inner.upgrade() {
                        lock(&inner.wanted).ended.push((id, tag));
                        inner.changed.notify_one();
                    }
                },
            )
            .await
    }

    /// Whether a queue is still there, asked on a channel of its own, which a "no" costs.
    async fn survived(&self, queue: &Queue) -> Result<bool, Error> {
        let question = Queue {
            passive: true,
            ..Queue::new(queue.name.clone())
        };
        let channel = self.connection.channel().await?;
        match channel.queue_declare(&question).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            // It is there, but belongs to a connection that the broker still believes in (405).
            Err(Error::ChannelClosed { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers")
            .field("uris", &self.0.0.options.uris)
            .field("link", &*self.0.0.link.borrow())
            .finish_non_exhaustive()
    }
}
