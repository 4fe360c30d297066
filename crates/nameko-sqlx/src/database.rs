//! A connection pool, injected as a dependency.

use std::{sync::OnceLock, time::Duration};

use futures_util::future::BoxFuture;
use nameko::{Config, Container, DependencyProvider, Error, Result, WorkerContext};
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use crate::{error::is_retriable, isolation::Isolation, session::Session};

/// Config key of the URL.
const URL_KEY: &str = "DATABASE_URL";
/// Timeout of the connection that checks the server at the start of the service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A pool of connections to PostgreSQL. Injects itself; clones share the pool.
///
/// The URL is that of the config key `DATABASE_URL`, such as `postgres://user:password@host/name`.
/// The pool has as many connections as the container has workers (`max_workers`). A wrong URL, or a
/// server that does not respond, fails the start of the service.
///
/// ```
/// use nameko::prelude::*;
/// use nameko_sqlx::{Database, Isolation, sqlx};
///
/// #[derive(Dependencies)]
/// struct Accounts {
///     #[dependency(Database::new())]
///     database: Database,
/// }
///
/// #[service("accounts")]
/// impl Accounts {
///     /// Runs again, up to three times, if the transaction conflicts with another one.
///     #[rpc]
///     async fn transfer(&self, from: i64, to: i64, amount: i64) -> Result<()> {
///         let move_amount = "UPDATE accounts SET amount = amount + $2 WHERE id = $1";
///         let database = self.database.isolation(Isolation::Serializable);
///         database.transaction(3, move |connection| Box::pin(async move {
///             for (account, change) in [(from, -amount), (to, amount)] {
///                 let update = sqlx::query(move_amount).bind(account).bind(change);
///                 update.execute(&mut *connection).await.map_err(Error::from_error)?;
///             }
///             Ok(())
///         })).await
///     }
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Database {
    url: Option<String>,
    key: Option<&'static str>,
    max_connections: Option<u32>,
    isolation: Isolation,
    pool: OnceLock<PgPool>,
    /// Whether the pool is another owner's, who closes it.
    lent: bool,
}

impl Database {
    /// Creates a pool with the URL of the config key `DATABASE_URL`, opened with the service.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses an open pool, for example one shared by several services. It is not closed with the
    /// service.
    pub fn of_pool(pool: PgPool) -> Self {
        Self {
            pool: pool.into(),
            lent: true,
            ..Self::default()
        }
    }

    /// Sets the URL.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the config key of the URL.
    #[must_use]
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the maximum number of connections. The default is `max_workers` of the container.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Returns the same pool with an isolation level for [`transaction`](Self::transaction).
    #[must_use]
    pub fn isolation(&self, isolation: Isolation) -> Self {
        Self {
            isolation,
            ..self.clone()
        }
    }

    /// Returns the pool.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolClosed`] before the service was set up.
    pub fn pool(&self) -> sqlx::Result<&PgPool> {
        self.pool.get().ok_or(sqlx::Error::PoolClosed)
    }

    /// Runs `work` in a transaction and commits it, at most `attempts` times: again after a
    /// serialization failure (SQLSTATE 40001) or a deadlock (40P01), of `work` or of the commit.
    /// Other errors of `work` roll back.
    ///
    /// # Errors
    /// The error of the last attempt. [`CommitOutcomeUnknown`](crate::CommitOutcomeUnknown) if the
    /// connection breaks during the commit, which is not attempted again.
    pub async fn transaction<T, F>(&self, attempts: u32, mut work: F) -> Result<T>
    where
        F: for<'c> FnMut(&'c mut PgConnection) -> BoxFuture<'c, Result<T>> + Send,
        T: Send,
    {
        let mut attempt = 1;
        loop {
            let mut session = self.begin().await.map_err(Error::from_error)?;
            let result = match work(session.connection()).await {
                Ok(value) => session.commit().await.map(|()| value),
                Err(error) => {
                    session.roll_back().await;
                    Err(error)
                }
            };
            match result {
                Err(error) if attempt < attempts && is_retriable(&error) => {
                    tracing::debug!("transaction repeated after attempt {attempt}: {error}");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn begin(&self) -> sqlx::Result<Session> {
        Session::begin(self.pool()?, self.isolation).await
    }

    /// Closes the pool, unless it was lent. Waits until all connections are returned.
    pub(crate) async fn close(&self) {
        if let (Some(pool), false) = (self.pool.get(), self.lent) {
            pool.close().await;
        }
    }

    /// Opens the pool and checks that the server responds.
    pub(crate) async fn open(&self, container: &Container) -> Result<()> {
        if self.pool.get().is_some() {
            return Ok(());
        }
        let config = container.config();
        let options: PgConnectOptions = self.resolve_url(config)?;
        let workers = u32::try_from(container.max_workers()).unwrap_or(u32::MAX);
        // Not by the pool, which retries for its timeout and then hides the reason.
        let connect = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
        let connection = connect.await.map_err(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Error::raise(
                "DatabaseTimeout",
                format!("no connection to the database in {seconds} s"),
            )
        })?;
        let closed = connection.map_err(Error::from_error)?.close().await;
        closed.map_err(Error::from_error)?;
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections.unwrap_or(workers).max(1))
            .connect_lazy_with(options);
        let _ = self.pool.set(pool);
        Ok(())
    }

    fn resolve_url(&self, config: &Config) -> Result<PgConnectOptions> {
        let key = self.key.unwrap_or(URL_KEY);
        let url = match &self.url {
            Some(url) => url.as_str(),
            None => {
                let configured = config.str(key)?;
                configured.ok_or_else(|| config.invalid(key, "must be the URL of a PostgreSQL"))?
            }
        };
        url.parse().map_err(|error: sqlx::Error| {
            let message = format!("must be the URL of a PostgreSQL: {error}");
            config.invalid(key, message).into()
        })
    }
}

impl DependencyProvider for Database {
    type Dependency = Self;

    async fn setup(&self, container: &Container) -> Result<()> {
        self.open(container).await
    }

    async fn stop(&self) {
        self.close().await;
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Self> {
        Ok(self.clone())
    }
}
