//! Databases of unit tests.

use nameko::{
    Config,
    testing::{self, TestBroker},
};
use sqlx::{FromRow, PgPool, postgres::PgRow};

#[path = "../../crates/nameko-sqlx/tests/it/postgresql.rs"]
mod postgresql;

/// A database with the tables of the shop, and a broker.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    url: String,
    broker: TestBroker,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let url = postgresql::create_database().await;
        let pool = PgPool::connect(&url).await.expect("a connection");
        let tables = sqlx::raw_sql(include_str!("schema.sql"));
        tables.execute(&pool).await.expect("created");
        let broker = testing::broker().await;
        Self { pool, url, broker }
    }

    pub(crate) fn config(&self) -> Config {
        self.broker.config().with("DATABASE_URL", self.url.as_str())
    }

    /// Returns the rows of a query.
    pub(crate) async fn rows<R>(&self, query: &'static str) -> Vec<R>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let rows = sqlx::query_as(query).fetch_all(&self.pool).await;
        rows.expect("rows")
    }
}
