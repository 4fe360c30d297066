//! An open transaction on a connection of a pool.

use nameko::Result;
use sqlx::{Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::{error::commit_error, isolation::Isolation};

/// An open transaction. If it is dropped, its connection is closed instead of returned to the pool:
/// a dropped worker may have left a statement that still runs.
pub(crate) struct Session {
    /// `None` once the transaction has ended.
    connection: Option<PoolConnection<Postgres>>,
}

impl Session {
    pub(crate) async fn begin(pool: &PgPool, isolation: Isolation) -> sqlx::Result<Self> {
        let connection = pool.acquire().await?;
        let mut session = Self {
            connection: Some(connection),
        };
        session.connection().execute(isolation.begin()).await?;
        Ok(session)
    }

    /// Returns the connection.
    ///
    /// # Panics
    /// If the transaction has ended, which takes the session.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("an open transaction")
    }

    /// Returns the connection, for reading.
    pub(crate) fn as_connection(&self) -> &PgConnection {
        self.connection.as_ref().expect("an open transaction")
    }

    /// Commits, and returns the connection to the pool.
    ///
    /// After an error the connection is closed, unless the server reported that it rolled back.
    pub(crate) async fn commit(mut self) -> Result<()> {
        let committed = self.connection().execute("COMMIT").await;
        match committed {
            Ok(_) => {
                drop(self.connection.take());
                Ok(())
            }
            Err(error) => Err(commit_error(error)),
        }
    }

    /// Rolls back, and returns the connection to the pool; closes it on an error.
    pub(crate) async fn roll_back(mut self) {
        match self.connection().execute("ROLLBACK").await {
            Ok(_) => drop(self.connection.take()),
            Err(error) => {
                tracing::debug!("the connection is closed, since ROLLBACK failed: {error}")
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}
