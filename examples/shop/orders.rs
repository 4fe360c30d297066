//! The orders: one transaction per worker, committed before the caller has the reply.
//!
//! Events leave through an outbox, a table of the same transaction, so that an event is dispatched
//! if and only if its order is committed.

use std::time::Duration;

use jiff::civil::Date;
use nameko::prelude::*;
use nameko_sqlx::{Transaction, Transactions};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    errors::ShopError,
    stock::{StockService, StockServiceClient},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) customer: String,
    pub(crate) product: String,
    pub(crate) count: i32,
}

/// The numbers of orders and items of a day.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) orders: i64,
    pub(crate) items: i64,
}

/// The methods for other services.
#[rpc_client("orders")]
pub(crate) trait OrderService {
    async fn place(&self, order_id: Uuid, product: String, count: i32) -> Result<Order, ShopError>;
    async fn get(&self, order_id: Uuid) -> Result<Order, ShopError>;
    async fn placed(&self, order_ids: Vec<Uuid>) -> Result<Vec<Uuid>, ShopError>;
    async fn totals(&self, day: String) -> Result<Totals, ShopError>;
}

#[derive(Dependencies)]
pub(crate) struct Orders {
    #[dependency(UserId)]
    customer: Option<String>,
    // Less than the gateway's timeout: its client could not know the outcome.
    #[dependency(StockServiceClient::provider().timeout(Duration::from_secs(20)))]
    stock: StockServiceClient,
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
    #[dependency(Transactions::new())]
    transaction: Transaction,
}

#[service("orders")]
impl Orders {
    /// Places an order of the calling customer, and returns it. A repeated request has no effect:
    /// if this process dies, the broker delivers it again.
    #[rpc(expected_exceptions(NotFound, OutOfStock))]
    async fn place(&self, order_id: Uuid, product: String, count: i32) -> Result<Order, ShopError> {
        let customer = self
            .customer
            .clone()
            .ok_or_else(|| Error::from("a customer is required"))?;
        let order = Order {
            id: order_id,
            customer,
            product,
            count,
        };
        let insert = "INSERT INTO orders (id, customer, product, count) VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING";
        let mut connection = self.transaction.connection().await?;
        let inserted = sqlx::query(insert)
            .bind(order.id)
            .bind(&order.customer)
            .bind(&order.product)
            .bind(order.count)
            .execute(&mut *connection)
            .await?;
        if inserted.rows_affected() == 0 {
            drop(connection);
            return self.get(order_id).await;
        }
        sqlx::query("INSERT INTO outbox (event, data) VALUES ('order_placed', $1)")
            .bind(Json(&order))
            .execute(&mut *connection)
            .await?;
        // The last step: a failure before it reserves nothing.
        self.stock
            .reserve(order.id, order.product.clone(), order.count)
            .await?;
        Ok(order)
    }

    /// Returns an order of the calling customer.
    #[rpc(expected_exceptions(NotFound))]
    async fn get(&self, order_id: Uuid) -> Result<Order, ShopError> {
        let mut connection = self.transaction.connection().await?;
        let query = "SELECT customer, product, count FROM orders WHERE id = $1 AND customer = $2";
        let order: Option<(String, String, i32)> = sqlx::query_as(query)
            .bind(order_id)
            .bind(&self.customer)
            .fetch_optional(&mut *connection)
            .await?;
        let (customer, product, count) =
            order.ok_or_else(|| ShopError::NotFound(format!("no order {order_id}")))?;
        Ok(Order {
            id: order_id,
            customer,
            product,
            count,
        })
    }

    /// Returns those of the ids that are the ids of orders.
    #[rpc]
    async fn placed(&self, order_ids: Vec<Uuid>) -> Result<Vec<Uuid>, ShopError> {
        let mut connection = self.transaction.connection().await?;
        let query = sqlx::query_scalar("SELECT id FROM orders WHERE id = ANY($1)");
        Ok(query.bind(order_ids).fetch_all(&mut *connection).await?)
    }

    /// Returns the numbers of orders and items of a day in UTC, such as `2026-03-02`.
    #[rpc(expected_exceptions(Invalid))]
    async fn totals(&self, day: String) -> Result<Totals, ShopError> {
        let day = read_day(&day)?;
        let mut connection = self.transaction.connection().await?;
        let query = "SELECT count(*), coalesce(sum(count), 0) FROM orders
            WHERE placed_at >= $1::timestamptz AND placed_at < $1::timestamptz + interval '24 hours'";
        let (orders, items) = sqlx::query_as(query)
            .bind(format!("{day}T00:00Z"))
            .fetch_one(&mut *connection)
            .await?;
        Ok(Totals { orders, items })
    }

    /// Dispatches the committed events. After a crash, an event may be dispatched twice.
    #[timer(interval = 0.2)]
    async fn relay(&self) -> Result<(), ShopError> {
        let mut connection = self.transaction.connection().await?;
        let query = "WITH dispatched AS (
                DELETE FROM outbox WHERE id IN
                    (SELECT id FROM outbox ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)
                RETURNING id, event, data
            )
            SELECT event, data FROM dispatched ORDER BY id";
        let events: Vec<(String, serde_json::Value)> =
            sqlx::query_as(query).fetch_all(&mut *connection).await?;
        for (event, data) in events {
            self.events.dispatch(&event, &data).await?;
        }
        Ok(())
    }
}

/// Reads a day such as `2026-03-02`.
pub(crate) fn read_day(text: &str) -> Result<Date, ShopError> {
    text.parse()
        .map_err(|error| ShopError::Invalid(format!("`{text}` is not a day: {error}")))
}

#[cfg(test)]
mod tests {
    use nameko::testing::{Recorder, entrypoint_hook};

    use super::*;
    use crate::database::Database;

    /// Starts the method `place`, with a mock of the stock.
    async fn start(
        database: &Database,
        reserve: impl Fn(serde_json::Value) -> Result<()> + Send + Sync + 'static,
    ) -> Container {
        let stock = ServiceProxy::mock("stock", move |_, _, arguments| {
            reserve(arguments).map(|()| serde_json::Value::Null)
        });
        let orders = Container::builder::<Orders>(database.config())
            .replace("stock", StockServiceClient::from(stock))
            .only(["place"])
            .build()
            .expect("a container");
        orders.start().await.expect("started");
        orders
    }

    #[tokio::test]
    async fn a_repeated_request_places_one_order() {
        let database = Database::create().await;
        let reserved = Recorder::new();
        let recorder = reserved.clone();
        let orders = start(&database, move |arguments| {
            recorder.record(arguments);
            Ok(())
        });
        let orders = orders.await;
        let place = entrypoint_hook(&orders, "place").context("user_id", "ada");
        let id = Uuid::new_v4();
        for _ in 0..2 {
            let order: Order = place.call((id, "nut", 3)).await.expect("placed");
            let (customer, product) = ("ada".to_owned(), "nut".to_owned());
            assert_eq!(
                order,
                Order {
                    id,
                    customer,
                    product,
                    count: 3
                }
            );
        }
        let reservation = serde_json::json!({"order_id": id, "product": "nut", "count": 3});
        assert_eq!(reserved.items(), [reservation]);
        let events: Vec<(Json<Order>,)> = database.rows("SELECT data FROM outbox").await;
        assert_eq!(events.len(), 1);
        orders.stop().await;
    }

    #[tokio::test]
    async fn a_refused_order_leaves_nothing() {
        let database = Database::create().await;
        let refuse = |_| Err(ShopError::OutOfStock("2 of nut available".to_owned()).into());
        let orders = start(&database, refuse).await;
        let place = entrypoint_hook(&orders, "place").context("user_id", "ada");
        let refused = place.call::<Order>((Uuid::new_v4(), "nut", 3)).await;
        assert_eq!(refused.unwrap_err().to_string(), "2 of nut available");
        let left = "SELECT id FROM orders UNION ALL SELECT gen_random_uuid() FROM outbox";
        assert_eq!(database.rows::<(Uuid,)>(left).await, []);
        orders.stop().await;
    }
}
