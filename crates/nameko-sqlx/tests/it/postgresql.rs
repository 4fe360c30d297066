//! Databases of the PostgreSQL at `POSTGRESQL_URL`, which `scripts/with_postgresql` sets.

use std::sync::atomic::{AtomicU32, Ordering};

use nameko_sqlx::sqlx::{self, PgPool};

/// Creates an empty database, and returns its URL.
pub(crate) async fn create_database() -> String {
    let url = std::env::var("POSTGRESQL_URL")
        .expect("POSTGRESQL_URL is not set: run scripts/with_postgresql cargo test");
    let name = format!("test_{}", unique_suffix());
    let admin = PgPool::connect(&url).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&admin).await.unwrap();
    admin.close().await;
    url.replacen("/postgres", &format!("/{name}"), 1)
}

/// Returns a number that no other test of this or another process has.
fn unique_suffix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
