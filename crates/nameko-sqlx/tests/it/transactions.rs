//! One transaction per worker.

use std::time::Duration;

use nameko::{prelude::*, web};
use nameko_sqlx::{
    CommitOutcomeUnknown, Transaction, Transactions,
    sqlx::{self, PgPool},
};
use tokio::task::JoinSet;

use crate::{Running, TestResult, create_database, http_status};

const TABLES: &str = "
    CREATE TABLE products (name text PRIMARY KEY);
    INSERT INTO products VALUES ('nut');
    CREATE TABLE orders (
        id bigint PRIMARY KEY,
        product text NOT NULL REFERENCES products DEFERRABLE INITIALLY DEFERRED
    );";

#[derive(Dependencies)]
struct Orders {
    #[dependency(Transactions::new())]
    transaction: Transaction,
}

#[service("orders")]
impl Orders {
    #[rpc]
    async fn place(&self, id: i64, product: String) -> Result<i64> {
        let mut connection = self
            .transaction
            .connection()
            .await
            .map_err(Error::from_error)?;
        let insert = sqlx::query("INSERT INTO orders VALUES ($1, $2)")
            .bind(id)
            .bind(product);
        insert
            .execute(&mut *connection)
            .await
            .map_err(Error::from_error)?;
        Ok(id)
    }

    #[rpc]
    async fn place_and_fail(&self, id: i64) -> Result<()> {
        self.place(id, "nut".to_owned()).await?;
        Err(Error::raise("Changed", "my mind"))
    }

    #[rpc]
    async fn place_and_panic(&self, id: i64) -> Result<()> {
        self.place(id, "nut".to_owned()).await?;
        panic!("out of paper");
    }

    /// Ends its own connection on the server with the commit: a deferred trigger terminates it.
    #[rpc]
    async fn place_and_lose_the_connection(&self, id: i64) -> Result<()> {
        self.place(id, "nut".to_owned()).await?;
        let mut connection = self
            .transaction
            .connection()
            .await
            .map_err(Error::from_error)?;
        let trigger = "
            CREATE FUNCTION end_connection() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON orders
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_connection();
            INSERT INTO orders VALUES (-1, 'nut');";
        sqlx::raw_sql(trigger)
            .execute(&mut *connection)
            .await
            .map_err(Error::from_error)?;
        Ok(())
    }

    #[rpc]
    async fn lend_to_a_task(&self, id: i64) -> Result<()> {
        self.place(id, "nut".to_owned()).await?;
        let guard = self
            .transaction
            .connection()
            .await
            .map_err(Error::from_error)?;
        tokio::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        Ok(())
    }

    #[rpc]
    async fn count(&self) -> Result<i64> {
        let mut connection = self
            .transaction
            .connection()
            .await
            .map_err(Error::from_error)?;
        let count = sqlx::query_scalar("SELECT count(*) FROM orders");
        count
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::from_error)
    }

    #[rpc]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }

    #[http(GET, "/slow/{id}")]
    async fn slow(&self, id: i64) -> Result<()> {
        self.place(id, "nut".to_owned()).await?;
        let mut connection = self
            .transaction
            .connection()
            .await
            .map_err(Error::from_error)?;
        let sleep = sqlx::query("SELECT pg_sleep(60)");
        sleep
            .execute(&mut *connection)
            .await
            .map_err(Error::from_error)?;
        Ok(())
    }
}

async fn orders() -> Running {
    Running::start::<Orders>(TABLES, |config| {
        config
            .with("WEB_SERVER_ADDRESS", "127.0.0.1:0")
            .with("WEB_SERVER_TIMEOUT", 0.2)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_sees_its_order_once_it_has_the_reply() -> TestResult {
    let running = orders().await;
    let mut calls = JoinSet::new();
    for first in (0..200).step_by(50) {
        let orders = running.cluster.service("orders");
        let pool = running.pool.clone();
        calls.spawn(async move {
            for id in first..first + 50 {
                let id: i64 = orders.call("place", (id, "nut")).await.unwrap();
                let found = sqlx::query("SELECT FROM orders WHERE id = $1").bind(id);
                assert!(
                    found.fetch_optional(&pool).await.unwrap().is_some(),
                    "order {id} is missing"
                );
            }
        });
    }
    while let Some(result) = calls.join_next().await {
        result?;
    }
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_commit_is_the_callers() -> TestResult {
    let running = orders().await;
    let orders = running.cluster.service("orders");
    let error = orders
        .call::<i64>("place", (1, "unknown"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("violates foreign key constraint"),
        "{error}"
    );
    assert_eq!(orders.call::<i64>("count", ()).await?, 0);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_fails_or_panics_leaves_nothing() -> TestResult {
    let running = orders().await;
    let orders = running.cluster.service("orders");
    let failed = orders.call::<()>("place_and_fail", (1,)).await.unwrap_err();
    assert_eq!(failed.to_string(), "Changed my mind");
    orders
        .call::<()>("place_and_panic", (2,))
        .await
        .unwrap_err();
    assert_eq!(orders.call::<i64>("count", ()).await?, 0);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_at_commit_is_an_unknown_outcome() -> TestResult {
    nameko::exceptions::register::<CommitOutcomeUnknown>();
    let running = orders().await;
    let orders = running.cluster.service("orders");
    let call = orders
        .call::<()>("place_and_lose_the_connection", (1,))
        .await;
    let error = call.unwrap_err();
    assert!(
        error.downcast_ref::<CommitOutcomeUnknown>().is_some(),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("the outcome of the transaction is unknown"),
        "{error}"
    );
    // The pool has replaced the connection.
    assert_eq!(orders.call::<i64>("count", ()).await?, 0);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_timeouts_leave_the_pool_whole() -> TestResult {
    let running = orders().await;
    let address = web::address(&running.container).ok_or("no web server")?;
    let mut requests = JoinSet::new();
    for id in 0..10 {
        requests.spawn(async move { http_status(address, &format!("/slow/{id}")).await });
    }
    while let Some(response) = requests.join_next().await {
        assert_eq!(response??, "HTTP/1.1 503 Service Unavailable");
    }
    let orders = running.cluster.service("orders");
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let orders = orders.clone();
        calls.spawn(async move { orders.call::<i64>("count", ()).await });
    }
    while let Some(count) = calls.join_next().await {
        assert_eq!(count??, 0);
    }
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_kept_by_a_task_is_not_committed() -> TestResult {
    let running = orders().await;
    let orders = running.cluster.service("orders");
    let error = orders.call::<()>("lend_to_a_task", (1,)).await.unwrap_err();
    assert!(error.to_string().starts_with("TransactionInUse"), "{error}");
    assert_eq!(orders.call::<i64>("count", ()).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_without_queries_takes_no_connection() -> TestResult {
    let running = orders().await;
    let orders = running.cluster.service("orders");
    orders.call::<()>("nothing", ()).await?;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND state LIKE 'idle in transaction%'";
    assert_eq!(running.count(idle).await, 0);
    running.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_method_that_waits_for_its_own_guard_gets_an_error() -> TestResult {
    let pool = PgPool::connect(&create_database().await).await?;
    let transaction = Transaction::of_pool(pool);
    let guard = transaction.connection().await?;
    tokio::time::pause();
    let error = transaction.connection().await.unwrap_err();
    assert!(error.to_string().contains("was kept for 30 s"), "{error}");
    drop(guard);
    transaction.connection().await?;
    Ok(())
}

#[tokio::test]
async fn a_service_without_its_database_does_not_start() -> TestResult {
    for (url, expected) in [
        ("nonsense", "must be the URL of a PostgreSQL"),
        ("postgres://nobody@127.0.0.1:1/none", "refused"),
    ] {
        let config = Config::default().with("DATABASE_URL", url);
        let started = tokio::time::timeout(Duration::from_secs(60), async {
            Container::new::<Orders>(config)?.start().await
        });
        let error = started.await?.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    Ok(())
}
