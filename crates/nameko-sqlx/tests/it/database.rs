//! The pool as a dependency, and transactions that repeat.

use nameko::prelude::*;
use nameko_sqlx::{Database, Isolation, sqlx};
use tokio::task::JoinSet;

use crate::{Running, TestResult};

const TABLES: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, amount bigint NOT NULL CHECK (amount >= 0));
    INSERT INTO accounts VALUES (1, 100), (2, 100);";

#[derive(Dependencies)]
struct Accounts {
    #[dependency(Database::new().max_connections(5))]
    database: Database,
}

#[service("accounts")]
impl Accounts {
    /// Reads, then writes: concurrent calls conflict.
    #[rpc]
    async fn deposit(&self, amount: i64, attempts: u32) -> Result<i64> {
        let database = self.database.isolation(Isolation::Serializable);
        database
            .transaction(attempts, move |connection| {
                Box::pin(async move {
                    let sum: i64 = sqlx::query_scalar("SELECT sum(amount)::bigint FROM accounts")
                        .fetch_one(&mut *connection)
                        .await
                        .map_err(Error::from_error)?;
                    sqlx::query("UPDATE accounts SET amount = amount + $1 WHERE id = 1")
                        .bind(amount)
                        .execute(&mut *connection)
                        .await
                        .map_err(Error::from_error)?;
                    Ok(sum + amount)
                })
            })
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_transactions_repeat_until_they_succeed() -> TestResult {
    let running = Running::start::<Accounts>(TABLES, |config| config).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let accounts = running.cluster.service("accounts");
        calls.spawn(async move { accounts.call::<i64>("deposit", (1, 100)).await });
    }
    let mut sums = Vec::new();
    while let Some(sum) = calls.join_next().await {
        sums.push(sum??);
    }
    // Each has seen the deposits of those before it.
    sums.sort_unstable();
    assert_eq!(sums, (201..=210).collect::<Vec<_>>());
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_errors_are_not_repeated() -> TestResult {
    let running = Running::start::<Accounts>(TABLES, |config| config).await;
    let accounts = running.cluster.service("accounts");
    let error = accounts
        .call::<i64>("deposit", (-1000, 5))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("violates check constraint"),
        "{error}"
    );
    assert_eq!(
        running
            .count("SELECT sum(amount)::bigint FROM accounts")
            .await,
        200
    );
    running.stop().await;
    Ok(())
}
