//! Pushes the orders of a customer to their open pages, and serves the page.

use std::collections::HashMap;

use nameko::{
    prelude::*,
    web::{self, Html, WebSocketConnect, WebSocketHandshake, WebSocketHub, WebSocketHubProvider},
};

use crate::orders::Order;

#[derive(Dependencies)]
pub(crate) struct Feed {
    #[dependency(WebSocketHubProvider::new())]
    hub: WebSocketHub,
    #[dependency(ConfigValue::of("TOKENS"))]
    tokens: HashMap<String, String>,
    #[dependency(ConfigValue::of("GATEWAY_URL"))]
    gateway_url: String,
    #[dependency(UserId)]
    customer: Option<String>,
}

#[service("feed")]
impl Feed {
    #[http(GET, "/")]
    async fn page(&self) -> Result<Html<String>> {
        Ok(Html(
            include_str!("shop.html").replace("{GATEWAY_URL}", &self.gateway_url),
        ))
    }

    /// Sets the customer of the socket by the token in the query, since browsers cannot set headers
    /// of a handshake.
    #[entrypoint(WebSocketHandshake::new())]
    async fn admit(&self, query: HashMap<String, String>) -> Result<HashMap<&'static str, String>> {
        let customer = query.get("token").and_then(|token| self.tokens.get(token));
        let customer = customer.ok_or_else(|| {
            web::Error::unauthorized("Bearer", "a token of a customer is required")
        })?;
        Ok([("user_id", customer.clone())].into())
    }

    #[entrypoint(WebSocketConnect::new())]
    async fn enter(&self, socket_id: String) -> Result<()> {
        let customer = self.customer.as_deref().unwrap_or_default();
        self.hub.subscribe(&socket_id, customer)
    }

    /// Runs in every instance, since each knows its own sockets only.
    #[event_handler(
        "orders", "order_placed", handler_type = broadcast, reliable_delivery = false
    )]
    async fn push(&self, order: Order) -> Result<()> {
        self.hub
            .broadcast(&order.customer, "order_placed", &order)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_decides_the_customer() {
        let feed = Feed {
            hub: WebSocketHub::default(),
            tokens: HashMap::from([("ada-secret".to_owned(), "ada".to_owned())]),
            gateway_url: String::new(),
            customer: None,
        };
        let admit =
            |token: &str| feed.admit(HashMap::from([("token".to_owned(), token.to_owned())]));
        let context = admit("ada-secret").await.expect("admitted");
        assert_eq!(context, HashMap::from([("user_id", "ada".to_owned())]));
        let refused = web::Error::from(admit("wrong").await.unwrap_err());
        assert_eq!(refused.status().as_u16(), 401);
    }
}
