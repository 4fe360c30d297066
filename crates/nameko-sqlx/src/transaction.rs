//! A transaction per worker.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use nameko::{Container, Error, Outcome, Result, StatefulProvider, WorkerContext, WorkerEnd};
use sqlx::{PgConnection, PgPool};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use crate::{database::Database, isolation::Isolation, session::Session};

/// Timeout of the wait for a guard that is in use: that of a pool for a free connection.
const GUARD_TIMEOUT: Duration = Duration::from_secs(30);

/// Provides a [`Transaction`] to each worker, committed before the reply is sent and the message
/// is acknowledged.
///
/// | end of the method | transaction |
/// |---|---|
/// | `Ok` | committed; an error of the commit, such as a deferred constraint, is the caller's |
/// | `Err` or a panic | rolled back |
/// | cancelled or killed worker | rolled back; its connection is closed: a statement may be running |
///
/// If the connection breaks during the commit, callers receive
/// [`CommitOutcomeUnknown`](crate::CommitOutcomeUnknown). A provider to the right of this one runs
/// its `before_reply` after the commit.
///
/// ```
/// use nameko::prelude::*;
/// use nameko_sqlx::{Transaction, Transactions, sqlx};
///
/// #[derive(Dependencies)]
/// struct Orders {
///     #[dependency(Transactions::new())]
///     transaction: Transaction,
/// }
///
/// #[service("orders")]
/// impl Orders {
///     #[rpc]
///     async fn place(&self, product: String, count: i32) -> Result<i64, sqlx::Error> {
///         let mut connection = self.transaction.connection().await?;
///         sqlx::query_scalar("INSERT INTO orders (product, count) VALUES ($1, $2) RETURNING id")
///             .bind(product)
///             .bind(count)
///             .fetch_one(&mut *connection)
///             .await
///     }
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Transactions {
    database: Database,
}

impl Transactions {
    /// Uses a pool of its own with the URL of the config key `DATABASE_URL`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses an open pool, for example one shared by several services. It is not closed with the
    /// service.
    pub fn of_pool(pool: PgPool) -> Self {
        Database::of_pool(pool).into()
    }

    /// Sets the isolation level.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        self.database.isolation(isolation).into()
    }
}

/// Uses the pool of a [`Database`], with its URL and limits.
impl From<Database> for Transactions {
    fn from(database: Database) -> Self {
        Self { database }
    }
}

impl StatefulProvider for Transactions {
    type Dependency = Transaction;
    type State = Transaction;

    async fn setup(&self, container: &Container) -> Result<()> {
        self.database.open(container).await
    }

    async fn stop(&self) {
        self.database.close().await;
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<(Transaction, Transaction)> {
        let transaction = Transaction {
            database: self.database.clone(),
            session: Arc::new(Mutex::new(Slot::Unused)),
        };
        Ok((transaction.clone(), transaction))
    }

    async fn before_reply(
        &self,
        _: &WorkerContext,
        transaction: &mut Transaction,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let Ok(mut slot) = transaction.session.try_lock() else {
            // Dropped with its guard, which closes the connection.
            return Err(Error::raise(
                "TransactionInUse",
                "a task that outlives the method uses the transaction, so it was not committed",
            ));
        };
        match std::mem::replace(&mut *slot, Slot::Ended) {
            Slot::Open(session) if outcome.is_ok() => session.commit().await,
            Slot::Open(session) => {
                session.roll_back().await;
                Ok(())
            }
            Slot::Unused | Slot::Ended => Ok(()),
        }
    }

    async fn worker_teardown(
        &self,
        _: &WorkerContext,
        transaction: Transaction,
        _: WorkerEnd<'_>,
    ) -> Result<()> {
        // Open only if the worker was cancelled or killed: the session closes its connection.
        if let Ok(mut slot) = transaction.session.try_lock() {
            *slot = Slot::Ended;
        }
        Ok(())
    }
}

/// The transaction of a worker. It begins with the first [`connection`](Self::connection), so that
/// a method that does not use it takes no connection of the pool. Clones share it.
#[derive(Clone)]
pub struct Transaction {
    database: Database,
    session: Arc<Mutex<Slot>>,
}

enum Slot {
    Unused,
    Open(Session),
    Ended,
}

impl Transaction {
    /// Creates a transaction outside of a service, for unit tests. It is rolled back when the last
    /// clone is dropped.
    pub fn of_pool(pool: PgPool) -> Self {
        Self {
            database: Database::of_pool(pool),
            session: Arc::new(Mutex::new(Slot::Unused)),
        }
    }

    /// Returns the connection, within the transaction. Waits while another clone uses it.
    ///
    /// Drop the guard before you call another method that takes the connection, which would wait
    /// for it.
    ///
    /// # Errors
    /// If the pool has no free connection within 30 s, or if the server refuses.
    /// [`sqlx::Error::Protocol`] in a task that outlives the method, and if another guard is kept
    /// for 30 s.
    pub async fn connection(&self) -> Result<Guard, sqlx::Error> {
        let lock = timeout(GUARD_TIMEOUT, self.session.clone().lock_owned());
        let mut slot = lock.await.map_err(|_| {
            let seconds = GUARD_TIMEOUT.as_secs();
            sqlx::Error::Protocol(format!(
                "another guard of the transaction's connection was kept for {seconds} s: drop it \
                 before you call a method that takes the connection"
            ))
        })?;
        match *slot {
            Slot::Open(_) => {}
            Slot::Unused => *slot = Slot::Open(self.database.begin().await?),
            Slot::Ended => {
                let ended = "the method has ended, and its transaction with it";
                return Err(sqlx::Error::Protocol(ended.to_owned()));
            }
        }
        Ok(Guard(slot))
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

/// The connection of a [`Transaction`]: `&mut *guard` is an [`sqlx::Executor`].
pub struct Guard(OwnedMutexGuard<Slot>);

impl Deref for Guard {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &*self.0 {
            Slot::Open(session) => session.as_connection(),
            Slot::Unused | Slot::Ended => unreachable!("a guard is created with an open session"),
        }
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut *self.0 {
            Slot::Open(session) => session.connection(),
            Slot::Unused | Slot::Ended => unreachable!("a guard is created with an open session"),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
