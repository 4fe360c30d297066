//! The stock: products, and their reservations by order.

use nameko::prelude::*;
use nameko_sqlx::{Transaction, Transactions};
use uuid::Uuid;

use crate::{
    errors::ShopError,
    orders::{OrderService, OrderServiceClient},
};

/// The methods for other services.
#[rpc_client("stock")]
pub(crate) trait StockService {
    async fn available(&self, product: String) -> Result<i32, ShopError>;
    async fn reserve(&self, order_id: Uuid, product: String, count: i32) -> Result<(), ShopError>;
}

#[derive(Dependencies)]
pub(crate) struct Stock {
    #[dependency(OrderServiceClient::provider())]
    orders: OrderServiceClient,
    #[dependency(Transactions::new())]
    transaction: Transaction,
}

#[service("stock")]
impl Stock {
    /// Returns the number of items that can be ordered.
    #[rpc(expected_exceptions(NotFound))]
    async fn available(&self, product: String) -> Result<i32, ShopError> {
        let mut connection = self.transaction.connection().await?;
        sqlx::query_scalar("SELECT available FROM products WHERE name = $1")
            .bind(&product)
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(|| ShopError::NotFound(format!("no product {product}")))
    }

    /// Reserves items for an order. A repeated request has no effect.
    #[rpc(expected_exceptions(NotFound, OutOfStock))]
    async fn reserve(&self, order_id: Uuid, product: String, count: i32) -> Result<(), ShopError> {
        let mut connection = self.transaction.connection().await?;
        // The row stays locked until the commit, so that no two orders get the same item.
        let available: i32 =
            sqlx::query_scalar("SELECT available FROM products WHERE name = $1 FOR UPDATE")
                .bind(&product)
                .fetch_optional(&mut *connection)
                .await?
                .ok_or_else(|| ShopError::NotFound(format!("no product {product}")))?;
        let reserve = "INSERT INTO reservations (order_id, product, count) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING";
        let reserved = sqlx::query(reserve)
            .bind(order_id)
            .bind(&product)
            .bind(count)
            .execute(&mut *connection)
            .await?;
        if reserved.rows_affected() == 0 {
            return Ok(());
        }
        // Rolls the reservation back.
        if available < count {
            return Err(ShopError::OutOfStock(format!(
                "{available} of {product} available"
            )));
        }
        sqlx::query("UPDATE products SET available = available - $2 WHERE name = $1")
            .bind(&product)
            .bind(count)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Confirms old reservations, or releases them if placing their order has failed.
    #[rpc]
    #[timer(interval = 60)]
    async fn settle(&self) -> Result<(), ShopError> {
        let mut connection = self.transaction.connection().await?;
        // Older than any transaction that still places its order.
        let old = "SELECT order_id FROM reservations
            WHERE NOT confirmed AND reserved_at < now() - interval '5 minutes'";
        let old: Vec<Uuid> = sqlx::query_scalar(old).fetch_all(&mut *connection).await?;
        if old.is_empty() {
            return Ok(());
        }
        // Before the locks below, which orders that are being placed may wait for.
        let placed = self.orders.placed(old.clone()).await?;
        sqlx::query("UPDATE reservations SET confirmed = true WHERE order_id = ANY($1)")
            .bind(placed)
            .execute(&mut *connection)
            .await?;
        let release = "WITH abandoned AS (
                DELETE FROM reservations WHERE NOT confirmed AND order_id = ANY($1)
                RETURNING product, count
            ), released AS (
                SELECT product, sum(count)::integer AS count FROM abandoned GROUP BY product
            )
            UPDATE products SET available = available + released.count
            FROM released WHERE name = released.product";
        sqlx::query(release)
            .bind(old)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nameko::testing::entrypoint_hook;

    use super::*;
    use crate::database::Database;

    #[tokio::test]
    async fn old_reservations_without_an_order_are_released() {
        let database = Database::create().await;
        let [committed, failed, recent] = [1, 2, 3].map(Uuid::from_u128);
        let insert = "INSERT INTO reservations (order_id, product, count, reserved_at)
            VALUES ($1, 'bolt', $2, now() - $3 * interval '1 minute')";
        for (order_id, count, age) in [(committed, 1, 6), (failed, 2, 6), (recent, 4, 4)] {
            let insert = sqlx::query(insert).bind(order_id).bind(count).bind(age);
            insert.execute(&database.pool).await.expect("inserted");
        }
        let orders =
            ServiceProxy::mock("orders", move |_, _, _| Ok(serde_json::json!([committed])));
        let stock = Container::builder::<Stock>(database.config())
            .replace("orders", OrderServiceClient::from(orders))
            .only(["settle"])
            .build()
            .expect("a container");
        stock.start().await.expect("started");
        for _ in 0..2 {
            let settled = entrypoint_hook(&stock, "settle").call::<()>(()).await;
            settled.expect("settled");
            let left = "SELECT order_id, confirmed FROM reservations ORDER BY order_id";
            let left: Vec<(Uuid, bool)> = database.rows(left).await;
            assert_eq!(left, [(committed, true), (recent, false)]);
            let available = "SELECT available FROM products WHERE name = 'bolt'";
            assert_eq!(database.rows::<(i32,)>(available).await, [(22,)]);
        }
        stock.stop().await;
    }
}
