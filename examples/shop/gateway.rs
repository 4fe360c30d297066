//! The shop over HTTP. Layers check the token and answer browsers (CORS).

use std::{collections::HashMap, sync::Arc, time::Duration};

use nameko::{
    prelude::*,
    web::{
        self, FromRequest, HeaderValue, HttpLayer, Json, Method, Request, RequestBody, Response,
        StatusCode,
        http::{self, header},
    },
};
use serde::{Deserialize, Serialize};
use tower::util::MapRequestLayer;
use tower_http::cors::CorsLayer;
use uuid::Uuid;

use crate::{
    orders::{Order, OrderService, OrderServiceClient},
    stock::{StockService, StockServiceClient},
};

/// Timeout of calls, after which the client gets a 504.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Dependencies)]
pub(crate) struct Gateway {
    #[dependency(OrderServiceClient::provider().timeout(TIMEOUT))]
    orders: OrderServiceClient,
    #[dependency(StockServiceClient::provider().timeout(TIMEOUT))]
    stock: StockServiceClient,
}

#[derive(Deserialize)]
struct Item {
    product: String,
    count: i32,
}

#[derive(Serialize)]
struct Product {
    name: String,
    available: i32,
}

#[service("gateway")]
impl Gateway {
    #[http(POST, "/orders")]
    async fn place(&self, customer: Customer, item: Json<Item>) -> Result<Response, web::Error> {
        let Item { product, count } = item.0;
        if product.is_empty() {
            return Err(web::Error::bad_request(
                "`product` must be the name of a product",
            ));
        }
        if count < 1 {
            return Err(web::Error::bad_request(
                "`count` must be a positive whole number",
            ));
        }
        let orders = self.orders.with_context("user_id", customer.0);
        let order = orders.place(Uuid::new_v4(), product, count).await?;
        let response = Response::json(&order)?.status(StatusCode::CREATED);
        Ok(response.header(header::LOCATION, format!("/orders/{}", order.id))?)
    }

    #[http(GET, "/orders/{order_id}")]
    async fn order(&self, customer: Customer, order_id: Uuid) -> Result<Json<Order>, web::Error> {
        let orders = self.orders.with_context("user_id", customer.0);
        Ok(Json(orders.get(order_id).await?))
    }

    #[http(GET, "/products/{name}")]
    async fn product(
        &self,
        _customer: Customer,
        name: String,
    ) -> Result<Json<Product>, web::Error> {
        let available = self.stock.available(name.clone()).await?;
        Ok(Json(Product { name, available }))
    }
}

/// The customer of a valid token. Required by the methods with this argument, before the body of
/// the request is read.
#[derive(Clone)]
struct Customer(String);

impl FromRequest for Customer {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        let customer = request.extensions().get().cloned();
        customer.ok_or_else(|| {
            web::Error::unauthorized("Bearer", "a bearer token of a customer is required").into()
        })
    }
}

/// Adds the customer of a valid token to the request.
pub(crate) fn identify(config: Config) -> Result<impl HttpLayer> {
    let tokens: Arc<HashMap<String, String>> = Arc::new(config.read("TOKENS")?);
    Ok(MapRequestLayer::new(
        move |mut request: http::Request<RequestBody>| {
            let header = request.headers().get(header::AUTHORIZATION);
            let token = header.and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
            if let Some(customer) = token.and_then(|token| tokens.get(token)) {
                let customer = Customer(customer.clone());
                request.extensions_mut().insert(customer);
            }
            request
        },
    ))
}

/// Lets the pages of `ALLOWED_ORIGIN` call the shop.
pub(crate) fn cors(config: Config) -> Result<impl HttpLayer> {
    let origin: String = config.read("ALLOWED_ORIGIN")?;
    let origin = HeaderValue::from_str(&origin)
        .map_err(|_| config.invalid("ALLOWED_ORIGIN", "must be an origin"))?;
    Ok(CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ShopError;

    /// Creates a gateway. Its calls of other services end with a result.
    fn gateway(
        result: impl Fn() -> Result<serde_json::Value, Error> + Clone + Send + Sync + 'static,
    ) -> Gateway {
        let mock = |name: &str| {
            let result = result.clone();
            ServiceProxy::mock(name, move |_, _, _| result())
        };
        Gateway {
            orders: mock("orders").into(),
            stock: mock("stock").into(),
        }
    }

    #[tokio::test]
    async fn errors_of_other_services_have_a_status() {
        let errors: [(fn() -> Error, u16); 4] = [
            (
                || ShopError::NotFound("no product nut".to_owned()).into(),
                404,
            ),
            (
                || ShopError::OutOfStock("1 of nut available".to_owned()).into(),
                409,
            ),
            (|| Error::UnknownService("stock".to_owned()), 503),
            (|| Error::raise("DivisionByZero", "no"), 500),
        ];
        for (error, status) in errors {
            let gateway = gateway(move || Err(error()));
            let product = gateway.product(Customer("ada".to_owned()), "nut".to_owned());
            let refused = product.await.err().expect("an error");
            assert_eq!(
                (refused.status().as_u16(), refused.to_string()),
                (status, error().to_string())
            );
        }
    }

    #[tokio::test]
    async fn an_order_has_a_product_and_at_least_one_item() {
        let gateway = gateway(|| Err("called".into()));
        for (product, count) in [("nut", 0), ("nut", -1), ("", 1)] {
            let item = Json(Item {
                product: product.to_owned(),
                count,
            });
            let refused = gateway.place(Customer("ada".to_owned()), item).await.err();
            assert_eq!(refused.expect("an error").status(), StatusCode::BAD_REQUEST);
        }
    }
}
