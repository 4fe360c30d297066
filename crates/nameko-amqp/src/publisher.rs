//! Publishing: one connection for all that a process publishes to a broker.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    runtime,
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::{
    backoff::Backoff,
    channel::Channel,
    connection::Connection,
    connection_state::ConnectionState,
    error::{Error, PublishError},
    lazy::Lazy,
    message::Publish,
    options::ConnectOptions,
    peer::Peer,
    sync::lock,
    topology::{Exchange, Queue},
    unsent::Unsent,
};

/// Publishes messages of the whole process over one connection, made at the first publish and again when it was lost.
///
/// Any number of publishes may be under way at once. Each exchange has a channel of its own, since a broker answers a wrong
/// publish by closing the channel: who publishes to other exchanges does not notice, and the next publish to that one opens
/// its channel again. When a broker refuses a single message (406, 403), the others that were under way on its channel are
/// published again, each on a channel of its own, unless retries are off. Messages with a `user_id`, the usual reason, are
/// kept apart from the start.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    options: ConnectOptions,
    /// The runtime it is for, if it was asked for on one: a connection ends with the runtime that runs it.
    runtime: Option<runtime::Id>,
    connection: Arc<Lazy<Connection>>,
    /// By exchange.
    channels: Mutex<HashMap<String, Arc<Channels>>>,
    /// Bounds how many channels there are for single messages.
    alone: Semaphore,
    /// Why an attempt last found no broker, and when.
    failure: Mutex<Option<(Instant, Error)>>,
}

/// The channels of one exchange, by [`Channels::at`].
#[derive(Default)]
struct Channels([Lazy<Channel>; 4]);

impl Channels {
    fn at(&self, with_user_id: bool, confirmed: bool) -> &Lazy<Channel> {
        let [plain, user, sent, user_sent] = &self.0;
        match (with_user_id, confirmed) {
            (false, true) => plain,
            (true, true) => user,
            (false, false) => sent,
            (true, false) => user_sent,
        }
    }

    /// Whether nobody waits on any of them.
    fn is_idle(&self) -> bool {
        self.0
            .iter()
            .all(|channel| channel.peek().is_none_or(|channel| channel.is_idle()))
    }
}

/// At most so many messages are published on channels of their own at once.
const MAX_ISOLATED_PUBLISHES: usize = 8;

/// With channels for more exchanges than this, those not in use are closed.
const MAX_CACHED_EXCHANGES: usize = 256;

/// The publishers of this process that are in use.
static PUBLISHERS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// What is declared before a message is published, once on each connection.
#[derive(Debug, Default)]
pub struct Declarations {
    /// Exchanges, declared first.
    pub exchanges: Vec<Exchange>,
    /// Queues, with their bindings.
    pub queues: Vec<Queue>,
    /// The connection on which it was declared last.
    on: Mutex<Weak<ConnectionState>>,
}

impl Declarations {
    /// A set of declarations.
    pub fn new(exchanges: Vec<Exchange>, queues: Vec<Queue>) -> Self {
        Self {
            exchanges,
            queues,
            on: Mutex::default(),
        }
    }

    /// Whether declaring it sends nothing.
    fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.exchanges.iter().all(|it| !it.is_declared())
    }

    /// Whether some of it may be gone by itself without the publisher hearing of it: then it is declared each time. That an
    /// exchange is gone tells the answer to a `confirmed` message. kombu declares anew what can go, too.
    fn can_vanish_unnoticed(&self, confirmed: bool) -> bool {
        let queue_goes = |it: &Queue| it.auto_delete || it.arguments.contains("x-expires");
        self.queues.iter().any(queue_goes)
            || !confirmed && self.exchanges.iter().any(|it| it.auto_delete)
    }

    /// What was declared may be gone.
    fn forget(&self) {
        *lock(&self.on) = Weak::new();
    }
}

/// How often and when to try again after the connection was lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How often, `None` for ever.
    pub max_retries: Option<u32>,
    /// The wait before the first retry.
    pub interval_start: Duration,
    /// How much longer each further wait is.
    pub interval_step: Duration,
    /// The longest wait.
    pub interval_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: Some(3),
            interval_start: Duration::from_secs(1),
            interval_step: Duration::from_secs(1),
            interval_max: Duration::from_secs(1),
        }
    }
}

impl Retry {
    /// The wait before retry number `retry`, counted from 0; `None` when there are no more.
    fn wait(&self, retry: u32) -> Option<Duration> {
        if self.max_retries.is_some_and(|max| retry >= max) {
            return None;
        }
        let steps = self.interval_step.saturating_mul(retry);
        Some(
            self.interval_start
                .saturating_add(steps)
                .min(self.interval_max),
        )
    }
}

impl Publisher {
    /// The publisher of this process for `options`. Opens nothing until the first publish.
    ///
    /// A process with several Tokio runtimes has one on each, so that none fails when another runtime ends.
    pub fn shared(options: &ConnectOptions) -> Publisher {
        let runtime = runtime::Handle::try_current()
            .ok()
            .map(|runtime| runtime.id());
        let mut publishers = lock(&PUBLISHERS);
        publishers.retain(|publisher| publisher.strong_count() > 0);
        let known = publishers.iter().filter_map(Weak::upgrade);
        if let Some(publisher) = known
            .into_iter()
            .find(|publisher| publisher.options == *options && publisher.runtime == runtime)
        {
            return Publisher(publisher);
        }
        let inner = Arc::new(Inner {
            options: options.clone(),
            runtime,
            connection: Arc::default(),
            channels: Mutex::default(),
            alone: Semaphore::new(MAX_ISOLATED_PUBLISHES),
            failure: Mutex::default(),
        });
        publishers.push(Arc::downgrade(&inner));
        Publisher(inner)
    }

    /// Publishes and waits for the broker's confirm. A lost connection is made again as `retry` says, `None` for not at all;
    /// the message may then arrive twice.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]. After the last retry the error of the last attempt.
    pub async fn publish(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        self.publish_as(&message, retry, true, &[]).await
    }

    /// Publishes without a task: encodes the message, which the result's [`flush`](Unsent::flush) has sent. When the broker
    /// has said what becomes of it, `then` is called on the I/O task, where it must not block; it gets the message back to
    /// publish it again, which is not tried here.
    ///
    /// # Errors
    ///
    /// Message and `then` come back when it is not possible right now: not connected, too much unsent, or it cannot be
    /// sent at all. [`publish`](Self::publish) then does what is to be done.
    pub fn put<F>(&self, message: Publish, then: F) -> Result<Unsent, Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        let channels = self.channels(&message.exchange);
        match channels
            .at(message.properties.user_id.is_some(), true)
            .peek()
        {
            Some(channel) => channel.put(message, then),
            None => Err(Box::new((message, then))),
        }
    }

    /// Publishes without asking for a confirm: resolves when the message is on its way. What the broker thinks of it,
    /// that its exchange does not exist for one, nobody hears.
    ///
    /// # Errors
    ///
    /// No connection came about, or the message cannot be sent over AMQP.
    pub async fn publish_unconfirmed(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        self.publish_as(&message, retry, false, &[]).await
    }

    /// Publishes, `confirmed` or not, when what `declarations` hold is declared on the connection.
    pub async fn publish_as(
        &self,
        message: &Publish,
        retry: Option<Retry>,
        confirmed: bool,
        declarations: &[&Declarations],
    ) -> Result<(), PublishError> {
        let mut retries = 0;
        let mut alone = false;
        let mut declared_anew = false;
        loop {
            // Boxed, as publishing alone is: rare, and larger than all the rest.
            let declared = match self.is_declared(declarations, confirmed) {
                true => Ok(()),
                false => Box::pin(self.all_declared(declarations, confirmed)).await,
            };
            let attempt = match declared.map_err(PublishError::from) {
                Err(error @ PublishError::Refused(_)) => return Err(error),
                Err(error) => Err(error),
                Ok(()) if alone => Box::pin(self.publish_alone(message)).await,
                Ok(()) => self.attempt(message, confirmed).await,
            };
            let error = match attempt {
                Err(PublishError::Lost(error)) => error,
                // The broker refuses one message but ends the channel for all that were under way on it, and does not say
                // which one it means.
                Err(PublishError::Refused(Error::ChannelClosed {
                    code: 403 | 406, ..
                })) if retry.is_some() && !alone => {
                    alone = true;
                    continue;
                }
                // An exchange went after it was declared: with its last binding, or somebody deleted it.
                Err(PublishError::Refused(Error::ChannelClosed { code: 404, .. }))
                    if !declared_anew && declarations.iter().any(|it| !it.is_empty()) =>
                {
                    declared_anew = true;
                    declarations.iter().for_each(|it| it.forget());
                    continue;
                }
                done => return done,
            };
            let Some(wait) = retry.and_then(|retry| retry.wait(retries)) else {
                return Err(PublishError::Lost(error));
            };
            tracing::debug!("publishing again in {wait:?}: {error}");
            *lock(&self.0.failure) = Some((Instant::now(), error));
            retries = retries.saturating_add(1);
            sleep(wait).await;
        }
    }

    /// Why nothing could be published at some time since `start`: for who gives up before the last retry.
    pub fn failure_since(&self, start: Instant) -> Option<Error> {
        let failure = lock(&self.0.failure).clone();
        failure
            .filter(|(at, _)| *at >= start)
            .map(|(_, error)| error)
    }

    /// Whom it publishes to, if there is an address at all.
    pub fn peer(&self) -> Option<Peer> {
        self.0.options.uris.first().map(Peer::from)
    }

    async fn attempt(&self, message: &Publish, confirmed: bool) -> Result<(), PublishError> {
        let channels = self.channels(&message.exchange);
        let lazy = channels.at(message.properties.user_id.is_some(), confirmed);
        // A channel that ended meanwhile says so before anything is sent. That costs a new channel, no retry.
        let confirm = match lazy.peek() {
            Some(channel) => match channel.publish(message).await {
                Ok(confirm) => Some(confirm),
                Err(error @ Error::Unsendable { .. }) => return Err(error.into()),
                Err(_) => None,
            },
            None => None,
        };
        let confirm = match confirm {
            Some(confirm) => confirm,
            None => {
                self.channel(lazy, confirmed)
                    .await?
                    .publish(message)
                    .await?
            }
        };
        confirm.await
    }

    /// Publishes on a channel that is only for this message, so that the broker's answer is for no other.
    async fn publish_alone(&self, message: &Publish) -> Result<(), PublishError> {
        // It is never closed.
        let _permit = self.0.alone.acquire().await;
        let channel = connect(&self.0.connection, self.0.options.clone())
            .await?
            .channel()
            .await?;
        channel.confirm_select().await?;
        channel.publish(message).await?.await
    }

    fn channels(&self, exchange: &str) -> Arc<Channels> {
        let mut channels = lock(&self.0.channels);
        if let Some(channels) = channels.get(exchange) {
            return Arc::clone(channels);
        }
        if channels.len() >= MAX_CACHED_EXCHANGES {
            channels.retain(|_, channels| Arc::strong_count(channels) > 1 || !channels.is_idle());
        }
        Arc::clone(channels.entry(exchange.to_owned()).or_default())
    }

    async fn channel(&self, lazy: &Lazy<Channel>, confirmed: bool) -> Result<Channel, Error> {
        lazy.get(Channel::is_open, || {
            let connection = Arc::clone(&self.0.connection);
            let options = self.0.options.clone();
            async move {
                let channel = connect(&connection, options).await?.channel().await?;
                if confirmed {
                    channel.confirm_select().await?;
                }
                Ok(channel)
            }
        })
        .await
    }

    /// Whether nothing is left to declare.
    fn is_declared(&self, declarations: &[&Declarations], confirmed: bool) -> bool {
        let on_this_connection = |it: &Declarations| {
            let connection = self.0.connection.peek().filter(Connection::is_open);
            connection.is_some_and(|connection| lock(&it.on).ptr_eq(&connection.identity()))
        };
        declarations.iter().all(|it| {
            it.is_empty() || !it.can_vanish_unnoticed(confirmed) && on_this_connection(it)
        })
    }

    async fn all_declared(
        &self,
        declarations: &[&Declarations],
        confirmed: bool,
    ) -> Result<(), Error> {
        for it in declarations {
            if it.can_vanish_unnoticed(confirmed) {
                it.forget();
            }
            self.declared(it).await?;
        }
        Ok(())
    }

    /// Declares what was not declared on this connection yet.
    async fn declared(&self, declarations: &Declarations) -> Result<(), Error> {
        if declarations.is_empty() {
            return Ok(());
        }
        let connection = connect(&self.0.connection, self.0.options.clone()).await?;
        let identity = connection.identity();
        if lock(&declarations.on).ptr_eq(&identity) {
            return Ok(());
        }
        declare(&connection, &declarations.exchanges, &declarations.queues).await?;
        *lock(&declarations.on) = identity;
        Ok(())
    }

    /// As [`declared`](Self::declared), but waits for a broker that is away or refuses the login, as consumers do.
    pub async fn ensure_declared(&self, declarations: &Declarations) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.declared(declarations).await {
                Err(error @ (Error::AccessRefused { .. } | Error::NotAllowed { .. })) => error,
                Err(error) if error.is_recoverable() => error,
                done => return done,
            };
            let wait = backoff.next();
            tracing::warn!("error connecting to broker: {error}; retrying in {wait:.1?}");
            sleep(wait).await;
        }
    }

    /// Declares exchanges, and queues with their exchanges and bindings.
    ///
    /// # Errors
    ///
    /// The broker refuses, or cannot be reached.
    pub async fn declare(&self, exchanges: &[Exchange], queues: &[Queue]) -> Result<(), Error> {
        let connection = connect(&self.0.connection, self.0.options.clone()).await?;
        declare(&connection, exchanges, queues).await
    }

    /// Closes the connection politely; the next publish opens it again.
    pub async fn close(&self) {
        let channels = std::mem::take(&mut *lock(&self.0.channels));
        if let Some(connection) = self.0.connection.take() {
            connection.close().await;
        }
        drop(channels);
    }
}

/// On a channel of its own, since a refusal ends it.
async fn declare(
    connection: &Connection,
    exchanges: &[Exchange],
    queues: &[Queue],
) -> Result<(), Error> {
    let channel = connection.channel().await?;
    for exchange in exchanges {
        channel.exchange_declare(exchange).await?;
    }
    for queue in queues {
        channel.declare_whole(queue).await?;
    }
    Ok(())
}

async fn connect(
    connection: &Lazy<Connection>,
    options: ConnectOptions,
) -> Result<Connection, Error> {
    connection
        .get(Connection::is_open, || {
            let options = options.clone();
            async move { Connection::open(&options).await }
        })
        .await
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher")
            .field(&self.0.options.uris)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_longer_up_to_a_limit_and_end() {
        let retry = Retry {
            max_retries: Some(4),
            interval_start: Duration::from_secs(2),
            interval_step: Duration::from_secs(1),
            interval_max: Duration::from_secs(4),
        };
        let waits: Vec<_> = (0..6)
            .map(|n| retry.wait(n).map(|wait| wait.as_secs()))
            .collect();
        assert_eq!(waits, [Some(2), Some(3), Some(4), Some(4), None, None]);
        let for_ever = Retry {
            max_retries: None,
            ..Retry::default()
        };
        assert_eq!(for_ever.wait(u32::MAX), Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_can_go_unheard_is_declared_each_time() {
        let exchange = |it: Exchange| Declarations::new(vec![it], Vec::new());
        let queue = |it: Queue| Declarations::new(Vec::new(), vec![it]);
        let fleeting = Exchange::topic("shop.events").auto_delete(true);
        for (declarations, confirmed, unheard) in [
            (exchange(Exchange::topic("shop.events")), false, false),
            (exchange(fleeting.clone()), true, false),
            (exchange(fleeting), false, true),
            (queue(Queue::new("q")), false, false),
            (queue(Queue::new("q").auto_delete(true)), true, true),
            (
                queue(Queue::new("q").expires(Duration::from_secs(1))),
                true,
                true,
            ),
        ] {
            assert_eq!(
                declarations.can_vanish_unnoticed(confirmed),
                unheard,
                "{declarations:?}"
            );
        }
    }

    #[test]
    fn one_publisher_for_equal_options() {
        let options = ConnectOptions::from_uri("amqp://localhost/one-publisher").unwrap();
        let first = Publisher::shared(&options);
        assert!(Arc::ptr_eq(&first.0, &Publisher::shared(&options).0));
        let mut other = options.clone();
        other.heartbeat = 7;
        assert!(!Arc::ptr_eq(&first.0, &Publisher::shared(&other).0));
    }
}
