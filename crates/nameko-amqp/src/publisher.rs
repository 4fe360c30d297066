//! Publishing over one connection per process and broker.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    runtime,
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    backoff::Backoff,
    channel::Channel,
    connection::Connection,
    declarations::{self, Declarations},
    error::{Error, PublishError},
    lazy::Lazy,
    message::Publish,
    options::ConnectOptions,
    outage::wait_to_reconnect,
    peer::Peer,
    retry::Retry,
    sync::lock,
    topology::{Exchange, Queue},
    unsent::Unsent,
};

/// Limit of concurrent publishes on channels of their own.
const MAX_ISOLATED_PUBLISHES: usize = 8;

/// Number of exchanges above which idle channels are closed.
const MAX_CACHED_EXCHANGES: usize = 256;

/// The publishers of this process that are in use.
static PUBLISHERS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Publishes messages over one connection, which is opened on first use and reopened after a loss.
///
/// Any number of publishes may be in flight. Each exchange has a channel of its own: a broker
/// answers an invalid publish by closing the channel, which must not affect publishes to other
/// exchanges. The next publish to that exchange opens a new channel.
///
/// If the broker refuses a single message (403, 406), the other messages in flight on its channel
/// are published again, each on a channel of its own, unless retries are off. Messages with a
/// `user_id`, the usual reason for a refusal, have separate channels from the start.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    options: ConnectOptions,
    /// Runtime that the publisher was created on. A connection ends with its runtime.
    runtime: Option<runtime::Id>,
    connection: Arc<Lazy<Connection>>,
    /// Channels by exchange.
    channels: Mutex<BTreeMap<String, Arc<ExchangeChannels>>>,
    /// Limits the channels for single messages.
    isolated: Semaphore,
    /// Last lost connection or failed attempt to connect, with its time.
    failure: Mutex<Option<(Instant, Error)>>,
}

/// The channels of one exchange, see [`select`](Self::select).
#[derive(Default)]
struct ExchangeChannels([Lazy<Channel>; 4]);

impl ExchangeChannels {
    fn select(&self, with_user_id: bool, confirmed: bool) -> &Lazy<Channel> {
        let [confirmed_plain, confirmed_user, plain, user] = &self.0;
        match (with_user_id, confirmed) {
            (false, true) => confirmed_plain,
            (true, true) => confirmed_user,
            (false, false) => plain,
            (true, false) => user,
        }
    }

    /// Returns whether no publish is in flight on any of them.
    fn is_idle(&self) -> bool {
        self.0
            .iter()
            .all(|channel| channel.peek().is_none_or(|channel| channel.is_idle()))
    }
}

/// Options of [`Publisher::publish_with`].
#[derive(Clone, Copy, Debug)]
pub struct PublishOptions<'a> {
    /// Retries after a lost connection, `None` for no retries. The message may then arrive twice.
    pub retry: Option<Retry>,
    /// Whether to wait for the broker's confirm.
    pub confirm: bool,
    /// Time limit of the publish with its retries, `None` to wait without limit, also for a
    /// broker that is short of memory. [`Retry::time_limit`] leaves time for the retries.
    pub timeout: Option<Duration>,
    /// Exchanges and queues to declare before the message is published.
    pub declarations: &'a [&'a Declarations],
}

impl Default for PublishOptions<'_> {
    fn default() -> Self {
        Self {
            retry: Some(Retry::default()),
            confirm: true,
            timeout: None,
            declarations: &[],
        }
    }
}

impl Publisher {
    /// Returns the publisher of this process for `options`. It connects at the first publish.
    ///
    /// Equal options give the same publisher, except on different Tokio runtimes: a connection ends
    /// with its runtime.
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
            isolated: Semaphore::new(MAX_ISOLATED_PUBLISHES),
            failure: Mutex::default(),
        });
        publishers.push(Arc::downgrade(&inner));
        Publisher(inner)
    }

    /// Publishes a message and waits for the broker's confirm.
    ///
    /// A lost connection is reopened and the message published again according to `retry`, `None`
    /// for no retries. The message may then arrive twice.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]. After the last retry, the error of the last attempt.
    pub async fn publish(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        let options = PublishOptions {
            retry,
            ..PublishOptions::default()
        };
        self.publish_with(&message, options).await
    }

    /// Publishes a message without a confirm: resolves when the message is in the output buffer.
    /// A refusal by the broker, for example as the exchange is missing, goes unnoticed.
    ///
    /// # Errors
    ///
    /// If no connection can be opened, or AMQP cannot carry the message.
    pub async fn publish_unconfirmed(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        let options = PublishOptions {
            retry,
            confirm: false,
            ..PublishOptions::default()
        };
        self.publish_with(&message, options).await
    }

    /// Encodes a message without waiting. It is sent by [`Unsent::flush`].
    ///
    /// `callback` is called with the message and the outcome, on the I/O task, where it must not
    /// block. There are no retries.
    ///
    /// # Errors
    ///
    /// If the message cannot be encoded now: not connected, too many bytes unsent, or not encodable
    /// at all. Message and callback are returned, for [`publish`](Self::publish) to be used
    /// instead.
    pub fn try_publish<F>(&self, message: Publish, callback: F) -> Result<Unsent, Box<(Publish, F)>>
    where
        F: FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    {
        let channels = self.channels(&message.exchange);
        match channels
            .select(message.properties.user_id.is_some(), true)
            .peek()
        {
            Some(channel) => channel.try_publish(message, callback),
            None => Err(Box::new((message, callback))),
        }
    }

    /// Publishes a message with any combination of retries, confirm and declarations.
    ///
    /// ```no_run
    /// # use nameko_amqp::{
    /// #     ConnectOptions, Declarations, Exchange, Publish, PublishError, PublishOptions,
    /// #     Publisher,
    /// # };
    /// # async fn example(options: &ConnectOptions) -> Result<(), PublishError> {
    /// let declarations = Declarations::new(vec![Exchange::topic("news")], vec![]);
    /// let message = Publish {
    ///     exchange: "news".into(),
    ///     routing_key: "weather".into(),
    ///     body: "rain".into(),
    ///     ..Publish::default()
    /// };
    /// let options = PublishOptions {
    ///     declarations: &[&declarations],
    ///     ..PublishOptions::default()
    /// };
    /// # let publisher = Publisher::shared(&ConnectOptions::new(vec![]));
    /// publisher.publish_with(&message, options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`PublishError`]. After the last retry, the error of the last attempt. At the time
    /// limit, [`PublishError::Lost`] with the cause; the message may still arrive. Errors of a
    /// declaration are returned as errors of the publish.
    pub async fn publish_with(
        &self,
        message: &Publish,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let Some(limit) = options.timeout else {
            return self.publish_with_retries(message, options).await;
        };
        let start = Instant::now();
        // Boxed, to keep the future without a limit small.
        let publish = Box::pin(self.publish_with_retries(message, options));
        match timeout(limit, publish).await {
            Ok(published) => published,
            Err(_) => Err(PublishError::Lost(self.overdue(
                start,
                limit,
                "waiting for the confirm of a message",
            ))),
        }
    }

    async fn publish_with_retries(
        &self,
        message: &Publish,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let PublishOptions {
            retry,
            confirm,
            declarations,
            timeout: _,
        } = options;
        let mut retries = 0;
        let mut isolated = false;
        let mut redeclared = false;
        loop {
            // Rare and larger than the rest of the future, so boxed; isolated publishes likewise.
            let declared = match self.are_declared(declarations, confirm) {
                true => Ok(()),
                false => Box::pin(self.declare_all(declarations, confirm)).await,
            };
            let attempt = match declared.map_err(PublishError::from) {
                Err(error @ PublishError::Refused(_)) => return Err(error),
                Err(error) => Err(error),
                Ok(()) if isolated => Box::pin(self.publish_isolated(message)).await,
                Ok(()) => self.attempt(message, confirm).await,
            };
            let error = match attempt {
                Err(PublishError::Lost(error)) => error,
                // Sending it again would not help.
                Err(PublishError::Refused(error))
                    if error
                        .max_message_size()
                        .is_some_and(|limit| message.body.len() as u64 > limit) =>
                {
                    return Err(PublishError::Refused(error));
                }
                // The broker refuses one message, and closes the channel for all in flight on it
                // without naming the one.
                Err(PublishError::Refused(Error::ChannelClosed {
                    code: 403 | 406, ..
                })) if retry.is_some() && !isolated => {
                    isolated = true;
                    continue;
                }
                // An exchange was deleted after its declaration, explicitly or with its last
                // binding.
                Err(PublishError::Refused(Error::ChannelClosed { code: 404, .. }))
                    if !redeclared
                        && declarations
                            .iter()
                            .any(|declarations| !declarations.is_empty()) =>
                {
                    redeclared = true;
                    declarations
                        .iter()
                        .for_each(|declarations| declarations.reset());
                    continue;
                }
                result => return result,
            };
            let Some(delay) = retry.and_then(|retry| retry.delay(retries)) else {
                return Err(PublishError::Lost(error));
            };
            tracing::debug!("publishing again in {delay:?}: {error}");
            *lock(&self.0.failure) = Some((Instant::now(), error.clone()));
            retries = retries.saturating_add(1);
            wait_to_reconnect(&self.0.options.uris, &error, delay).await;
        }
    }

    /// Returns the reason why a publish is not confirmed yet, for a caller that gives up `waited`
    /// after `start`: the broker accepts no messages, the last failure that the publish is retrying
    /// on, or a broker that does not answer while `doing`.
    pub fn overdue(&self, start: Instant, waited: Duration, doing: &'static str) -> Error {
        let connection = self.0.connection.peek().filter(Connection::is_open);
        if let Some(connection) = connection
            && let Some(reason) = connection.blocked()
        {
            return Error::Blocked {
                peer: connection.peer().clone(),
                reason,
                waited,
            };
        }
        let failure = lock(&self.0.failure).clone();
        if let Some((_, error)) = failure.filter(|(time, _)| *time >= start) {
            return error;
        }
        match self.0.options.uris.first() {
            Some(uri) => Error::Timeout {
                peer: Peer::from(uri),
                after: waited,
                doing,
            },
            None => Error::Stopped,
        }
    }

    async fn attempt(&self, message: &Publish, confirm: bool) -> Result<(), PublishError> {
        let channels = self.channels(&message.exchange);
        let lazy = channels.select(message.properties.user_id.is_some(), confirm);
        // A channel that was closed since its last use fails before anything is sent, which costs a
        // new channel but no retry.
        let confirmation = match lazy.peek() {
            Some(channel) => match channel.publish(message).await {
                Ok(confirmation) => Some(confirmation),
                Err(error @ Error::Unsendable { .. }) => return Err(error.into()),
                Err(_) => None,
            },
            None => None,
        };
        let confirmation = match confirmation {
            Some(confirmation) => confirmation,
            None => self.channel(lazy, confirm).await?.publish(message).await?,
        };
        confirmation.await
    }

    /// Publishes on a channel for this message alone, so that the broker's answer is about no
    /// other.
    async fn publish_isolated(&self, message: &Publish) -> Result<(), PublishError> {
        // Never fails: the semaphore is never closed.
        let _permit = self.0.isolated.acquire().await;
        let channel = connect(&self.0.connection, self.0.options.clone())
            .await?
            .channel()
            .await?;
        channel.confirm_select().await?;
        channel.publish(message).await?.await
    }

    fn channels(&self, exchange: &str) -> Arc<ExchangeChannels> {
        let mut channels = lock(&self.0.channels);
        if let Some(channels) = channels.get(exchange) {
            return Arc::clone(channels);
        }
        if channels.len() >= MAX_CACHED_EXCHANGES {
            channels.retain(|_, channels| Arc::strong_count(channels) > 1 || !channels.is_idle());
        }
        Arc::clone(channels.entry(exchange.to_owned()).or_default())
    }

    async fn channel(&self, lazy: &Lazy<Channel>, confirm: bool) -> Result<Channel, Error> {
        lazy.get(Channel::is_open, || {
            let connection = Arc::clone(&self.0.connection);
            let options = self.0.options.clone();
            async move {
                let channel = connect(&connection, options).await?.channel().await?;
                if confirm {
                    channel.confirm_select().await?;
                }
                Ok(channel)
            }
        })
        .await
    }

    /// Returns whether nothing has to be declared before a publish.
    fn are_declared(&self, declarations: &[&Declarations], confirm: bool) -> bool {
        let on_this_connection = |declarations: &Declarations| {
            let connection = self.0.connection.peek().filter(Connection::is_open);
            connection.is_some_and(|connection| declarations.is_declared_on(&connection))
        };
        declarations.iter().all(|declarations| {
            declarations.is_empty()
                || !declarations.can_vanish_unnoticed(confirm) && on_this_connection(declarations)
        })
    }

    async fn declare_all(
        &self,
        declarations: &[&Declarations],
        confirm: bool,
    ) -> Result<(), Error> {
        for declarations in declarations {
            if declarations.can_vanish_unnoticed(confirm) {
                declarations.reset();
            }
            self.declare_once(declarations).await?;
        }
        Ok(())
    }

    /// Declares unless it was done on this connection.
    async fn declare_once(&self, declarations: &Declarations) -> Result<(), Error> {
        if declarations.is_empty() {
            return Ok(());
        }
        let connection = connect(&self.0.connection, self.0.options.clone()).await?;
        if declarations.is_declared_on(&connection) {
            return Ok(());
        }
        declarations.declare_on(&connection).await
    }

    /// Declares `declarations`, unless it was done on this connection. Waits with a [`Backoff`] for
    /// a broker that is unreachable or refuses the login.
    ///
    /// # Errors
    ///
    /// If the broker refuses a declaration, or the options are unusable (a TLS file is missing,
    /// ...).
    pub async fn ensure_declared(&self, declarations: &Declarations) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.declare_once(declarations).await {
                Err(error @ (Error::AccessRefused { .. } | Error::NotAllowed { .. })) => error,
                Err(error) if error.is_recoverable() => error,
                result => return result,
            };
            let delay = backoff.next_reconnect(&error);
            tracing::warn!("error connecting to broker: {error}; retrying in {delay:.1?}");
            wait_to_reconnect(&self.0.options.uris, &error, delay).await;
        }
    }

    /// Declares exchanges, then queues with their exchanges and bindings.
    ///
    /// # Errors
    ///
    /// If the broker refuses, or cannot be reached.
    pub async fn declare(&self, exchanges: &[Exchange], queues: &[Queue]) -> Result<(), Error> {
        let connection = connect(&self.0.connection, self.0.options.clone()).await?;
        declarations::declare(&connection, exchanges, queues).await
    }

    /// Closes the connection gracefully, unless a message waits for its confirm. The next publish
    /// reopens it.
    pub async fn close_if_idle(&self) {
        let idle = lock(&self.0.channels)
            .values()
            .all(|channels| channels.is_idle());
        if idle && self.0.isolated.available_permits() == MAX_ISOLATED_PUBLISHES {
            self.close().await;
        }
    }

    /// Closes the connection gracefully. The next publish reopens it.
    pub async fn close(&self) {
        let channels = std::mem::take(&mut *lock(&self.0.channels));
        if let Some(connection) = self.0.connection.take() {
            connection.close().await;
        }
        drop(channels);
    }
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
    fn equal_options_share_a_publisher() {
        let options = ConnectOptions::from_uri("amqp://localhost/shared-publisher").unwrap();
        let first = Publisher::shared(&options);
        assert!(Arc::ptr_eq(&first.0, &Publisher::shared(&options).0));
        let mut other = options.clone();
        other.heartbeat = 7;
        assert!(!Arc::ptr_eq(&first.0, &Publisher::shared(&other).0));
    }
}
