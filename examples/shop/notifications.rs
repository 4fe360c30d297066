//! Notifies customers of their orders. An event whose notification fails becomes a dead letter.

use nameko::{amqp::Table, prelude::*};
use nameko_sqlx::{Transaction, Transactions};
use uuid::Uuid;

use crate::{errors::ShopError, orders::Order};

/// Queue of the events whose notification failed.
const FAILED: &str = "shop-notifications-failed";

fn dead_letters() -> Table {
    Table::new()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", FAILED)
}

#[derive(Dependencies)]
pub(crate) struct Notifications {
    #[dependency(Transactions::new())]
    transaction: Transaction,
}

#[service("notifications")]
impl Notifications {
    #[event_handler(
        "orders",
        "order_placed",
        reject_on_error,
        queue_arguments = dead_letters(),
        expected_exceptions("Bounced")
    )]
    async fn notify(&self, order: Order) -> Result<(), ShopError> {
        // An event may arrive twice; a customer is notified once.
        if self.record(&order, true).await? {
            let text = format!("You ordered {} of {}.", order.count, order.product);
            send_mail(&order.customer, &text)?;
        }
        Ok(())
    }

    #[consume(FAILED)]
    async fn keep(&self, order: Order) -> Result<(), ShopError> {
        self.record(&order, false).await?;
        tracing::error!("{} was not notified of order {}", order.customer, order.id);
        Ok(())
    }

    /// Returns `sent` or `failed`, `None` before.
    #[rpc]
    async fn status(&self, order_id: Uuid) -> Result<Option<&'static str>, ShopError> {
        let mut connection = self.transaction.connection().await?;
        let sent = sqlx::query_scalar("SELECT sent FROM notifications WHERE order_id = $1")
            .bind(order_id)
            .fetch_optional(&mut *connection)
            .await?;
        Ok(sent.map(|sent| if sent { "sent" } else { "failed" }))
    }

    /// Records the notification of an order, and returns `false` if it was recorded already.
    async fn record(&self, order: &Order, sent: bool) -> Result<bool, ShopError> {
        let mut connection = self.transaction.connection().await?;
        let insert = "INSERT INTO notifications (order_id, customer, sent) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING";
        let recorded = sqlx::query(insert)
            .bind(order.id)
            .bind(&order.customer)
            .bind(sent)
            .execute(&mut *connection)
            .await?;
        Ok(recorded.rows_affected() == 1)
    }
}

/// Logs the mail in place of a mail server.
fn send_mail(customer: &str, text: &str) -> Result<()> {
    if customer == "void" {
        return Err(Error::raise("Bounced", customer));
    }
    tracing::info!("mail to {customer}: {text}");
    Ok(())
}
