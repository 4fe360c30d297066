//! Reports the orders of a day, once in the fleet.

use std::time::Duration;

use jiff::Timestamp;
use nameko::prelude::*;
use nameko_sqlx::{Transaction, Transactions};
use serde::{Deserialize, Serialize};

use crate::{
    errors::ShopError,
    orders::{OrderService, OrderServiceClient, read_day},
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    day: String,
    orders: i64,
    items: i64,
}

#[derive(Dependencies)]
pub(crate) struct Reports {
    #[dependency(OrderServiceClient::provider())]
    orders: OrderServiceClient,
    #[dependency(Transactions::new())]
    transaction: Transaction,
}

#[service("reports")]
impl Reports {
    /// Makes the report of the day before. After an outage, the first instance makes it.
    #[cron("0 1 * * *", once = "fleet", late = Duration::from_secs(22 * 3600))]
    async fn daily(&self, time: Timestamp) -> Result<Option<Report>, ShopError> {
        let yesterday = time.in_tz("UTC").and_then(|time| time.date().yesterday());
        let yesterday = yesterday.map_err(Error::from_error)?;
        self.make(yesterday.to_string()).await
    }

    /// Makes the report of a day, such as `2026-03-02`, unless there is one, and returns it.
    #[rpc(expected_exceptions(Invalid))]
    async fn make(&self, day: String) -> Result<Option<Report>, ShopError> {
        let totals = self.orders.totals(day.clone()).await?;
        // The first instance inserts the row, the others wait for its commit and insert nothing.
        let insert = "INSERT INTO reports (day, orders, items) VALUES ($1::date, $2, $3)
            ON CONFLICT DO NOTHING";
        sqlx::query(insert)
            .bind(&day)
            .bind(totals.orders)
            .bind(totals.items)
            .execute(&mut *self.transaction.connection().await?)
            .await?;
        self.get(day).await
    }

    /// Returns the report of a day, `None` if it is not made yet.
    #[rpc(expected_exceptions(Invalid))]
    async fn get(&self, day: String) -> Result<Option<Report>, ShopError> {
        let query = "SELECT orders, items FROM reports WHERE day = $1::date";
        let found = sqlx::query_as(query)
            .bind(read_day(&day)?.to_string())
            .fetch_optional(&mut *self.transaction.connection().await?)
            .await?;
        Ok(found.map(|(orders, items)| Report { day, orders, items }))
    }
}

#[cfg(test)]
mod tests {
    use nameko::testing::entrypoint_hook;
    use serde_json::json;

    use super::*;
    use crate::database::Database;

    #[tokio::test]
    async fn two_instances_make_one_report() {
        let database = Database::create().await;
        let instance = async || {
            let orders = ServiceProxy::mock("orders", |_, _, arguments| {
                assert_eq!(arguments["day"], "2026-03-01");
                Ok(json!({"orders": 2, "items": 5}))
            });
            let reports = Container::builder::<Reports>(database.config())
                .replace("orders", OrderServiceClient::from(orders))
                .build()
                .expect("a container");
            reports.start().await.expect("started");
            reports
        };
        let (one, other) = (instance().await, instance().await);
        // As if each of them was the leader.
        let daily = async |reports: &Container| {
            let daily = entrypoint_hook(reports, "daily");
            daily.call::<Report>(("2026-03-02T01:00:00Z",)).await
        };
        let (first, second) = tokio::join!(daily(&one), daily(&other));
        let report = Report {
            day: "2026-03-01".to_owned(),
            orders: 2,
            items: 5,
        };
        assert_eq!(first.expect("a report"), report);
        assert_eq!(second.expect("a report"), report);
        assert_eq!(
            database.rows::<(i64,)>("SELECT items FROM reports").await,
            [(5,)]
        );
        one.stop().await;
        other.stop().await;
    }
}
