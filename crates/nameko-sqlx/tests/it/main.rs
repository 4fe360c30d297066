//! Tests on the PostgreSQL at `POSTGRESQL_URL`, which `scripts/with_postgresql cargo test` sets.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod database;
mod postgresql;
mod transactions;

use std::net::SocketAddr;

use nameko::{
    prelude::*,
    testing::{self, TestBroker},
};
use nameko_sqlx::sqlx::{self, PgPool};
use postgresql::create_database;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type TestResult = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A running service with a database of its own.
struct Running {
    container: Container,
    cluster: Cluster,
    pool: PgPool,
    _broker: TestBroker,
}

impl Running {
    async fn start<S: Service>(tables: &'static str, configure: fn(Config) -> Config) -> Self {
        let url = create_database().await;
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql(tables).execute(&pool).await.unwrap();

        let broker = testing::broker().await;
        let config = configure(broker.config().with("DATABASE_URL", url));
        let container = Container::new::<S>(config.clone()).unwrap();
        container.start().await.unwrap();
        let cluster = Cluster::connect(&config).await.unwrap();
        Self {
            container,
            cluster,
            pool,
            _broker: broker,
        }
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.cluster.stop().await;
        self.container.stop().await;
        self.pool.close().await;
    }
}

/// Returns the status line of the response to `GET path`.
async fn http_status(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response.lines().next().unwrap_or_default().to_owned())
}
