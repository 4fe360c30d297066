//! Calls from a program that is no service.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{
    amqp::{self, ConnectOptions, Consumers, Observer, Publisher, Table},
    config::Config,
    error::Result,
    protocol,
    rpc::{Caller, Client, Options, Replies, RpcClient, ServiceProxy},
    sync::lock,
};

/// How long [`Cluster::connect`] tries to reach the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Every service there is, to be called from any program. Usable from many tasks at once.
///
/// ```no_run
/// use nameko::{Cluster, Config};
///
/// # async fn run() -> nameko::Result<()> {
/// let config = Config::default().with("AMQP_URI", "amqp://guest:guest@localhost");
/// let cluster = Cluster::connect(&config).await?;
/// let text: String = cluster.service("service_x").call("remote_method", ("hello",)).await?;
/// cluster.stop().await;
/// # Ok(()) }
/// ```
pub struct Cluster {
    client: Client,
    options: Options,
    consumers: Consumers,
    replies: Arc<Replies>,
    caller: Arc<(String, Table)>,
}

impl Cluster {
    /// Connects to the broker of the configuration, and makes a reply queue.
    ///
    /// # Errors
    /// [`Error::Amqp`](crate::Error::Amqp) with the reason when the broker refuses us, or was not reached within five seconds;
    /// or does not give us a reply queue within five more.
    pub async fn connect(config: &Config) -> Result<Self> {
        Self::connect_with(config, Table::new()).await
    }

    /// As [`connect`](Self::connect), with context data that all calls carry: `language`, `auth_token`, or your own.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_with(config: &Config, context_data: Table) -> Result<Self> {
        let mut connect = config.connect_options()?;
        connect.connect_timeout = connect.connect_timeout.min(CONNECT_TIMEOUT);
        let exchange = protocol::rpc_exchange(config)?;
        let link = Arc::new(Link::default());
        let consumers = Consumers::new(connect.clone(), link.clone());
        let replies = Replies::subscribe(&consumers, &exchange, protocol::STANDALONE, None);
        *link.replies() = Arc::downgrade(&replies);
        in_time(&connect, link.reached(consumers.start()))
            .await
            .inspect_err(|_| consumers.kill())?;
        Ok(Self {
            client: Client::new(&exchange.name, Publisher::shared(&connect), replies.clone()),
            options: Options::new(config)?,
            consumers,
            replies,
            caller: Arc::new((
                protocol::call_id(protocol::STANDALONE, "call"),
                context_data,
            )),
        })
    }

    /// How long calls wait for their reply, `None` for ever. By default the config key `rpc_timeout`, else a minute.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.timeout = timeout.into();
        self
    }

    /// The service of that name. Whether it is there shows when it is called.
    pub fn service(&self, name: impl Into<Arc<str>>) -> ServiceProxy {
        ServiceProxy::new(
            name.into(),
            self.client.clone(),
            self.options.clone(),
            Caller::Standalone(self.caller.clone()),
        )
    }

    /// A typed client of its service, as [`#[rpc_client]`](macro@crate::rpc_client) writes them.
    pub fn client<C: RpcClient>(&self) -> C {
        self.service(C::SERVICE).into()
    }

    /// Disconnects. Calls that still wait fail with [`Error::ReplyLost`](crate::Error::ReplyLost).
    pub async fn stop(&self) {
        self.replies.close("the client was stopped");
        self.consumers.stop().await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.replies.close("the client was dropped");
        self.consumers.kill();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("call_id", &self.caller.0)
            .finish_non_exhaustive()
    }
}

/// Bounds `reached` where a broker says neither yes nor no to the reply queue. Each address has its time before that.
async fn in_time(
    options: &ConnectOptions,
    reached: impl Future<Output = Result<()>>,
) -> Result<()> {
    let steps = u32::try_from(options.uris.len()).unwrap_or(u32::MAX);
    let limit = CONNECT_TIMEOUT.saturating_mul(steps.saturating_add(1));
    match (timeout(limit, reached).await, options.uris.first()) {
        (Ok(reached), _) => reached,
        (Err(_), Some(uri)) => Err(amqp::Error::Timeout {
            peer: uri.into(),
            after: limit,
            doing: "declaring the reply queue",
        }
        .into()),
        (Err(_), None) => Err(amqp::Error::Stopped.into()),
    }
}

/// Hears how the connection fares: while it is first made, and afterwards.
#[derive(Default)]
struct Link {
    /// Why the last attempt failed.
    failure: Mutex<Option<amqp::Error>>,
    failed: Notify,
    /// Set with the first connection: a lost one is then made again, however long it takes.
    once: AtomicBool,
    replies: Mutex<std::sync::Weak<Replies>>,
}

impl Link {
    /// Waits for the first connection: not for ever, and not where the broker said no or nothing.
    async fn reached(&self, start: impl Future<Output = Result<(), amqp::Error>>) -> Result<()> {
        let gave_up = async {
            let mut deadline = std::pin::pin!(tokio::time::sleep(CONNECT_TIMEOUT));
            let mut due = false;
            loop {
                tokio::select! {
                    () = self.failed.notified() => {}
                    () = &mut deadline, if !due => due = true,
                }
                let last = |it: &mut amqp::Error| due || it.is_timeout() || !it.is_recoverable();
                if let Some(error) = self.failure().take_if(last) {
                    return error;
                }
            }
        };
        tokio::select! {
            result = start => Ok(result?),
            error = gave_up => Err(error.into()),
        }
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<amqp::Error>> {
        lock(&self.failure)
    }

    fn replies(&self) -> std::sync::MutexGuard<'_, std::sync::Weak<Replies>> {
        lock(&self.replies)
    }
}

impl Observer for Link {
    fn connection_error(&self, error: &amqp::Error, retry_in: Duration) {
        if self.once.load(Ordering::Relaxed) {
            tracing::warn!("error connecting to broker: {error}; retrying in {retry_in:.1?}");
        }
        *self.failure() = Some(error.clone());
        self.failed.notify_one();
    }

    fn connected(&self, reconnect: bool) {
        self.once.store(true, Ordering::Relaxed);
        if reconnect {
            tracing::info!("connected to broker again");
        }
        if let Some(replies) = self.replies().upgrade() {
            replies.connected();
        }
    }

    fn lost(&self, error: &amqp::Error) {
        tracing::warn!("connection to broker lost, trying to re-establish it: {error}");
        if let Some(replies) = self.replies().upgrade() {
            replies.lost(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_never_gives_a_queue_is_an_error() {
        let options = ConnectOptions::from_uri("amqp://here;amqp://there").expect("a URI");
        let link = Link::default();
        let hangs = link.reached(std::future::pending());
        let outcome = timeout(4 * CONNECT_TIMEOUT, in_time(&options, hangs)).await;
        let error = outcome.expect("in time").expect_err("no queue");
        assert!(
            error.to_string().contains("declaring the reply queue"),
            "{error}"
        );
    }
}
