//! HTTP arguments implement `FromRequest`, results `IntoResponse`.

use nameko::{
    prelude::*,
    web::{AsyncFromRequest, Json, Query, Request, Response},
};

struct Order;

struct User;

impl AsyncFromRequest<Elsewhere> for User {
    async fn from_request(
        _: &mut Request,
        _: &'static str,
        _: &WorkerContext,
        _: &Elsewhere,
    ) -> Result<Self> {
        Ok(Self)
    }
}

#[derive(Dependencies)]
struct Elsewhere;

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[http(GET, "/orders/{id}")]
    async fn get(&self, id: Order) -> Result<()> {
        let _ = id;
        Ok(())
    }

    #[http(POST, "/orders")]
    async fn add(&self, order: Json<Order>) -> Result<()> {
        let _ = order;
        Ok(())
    }

    #[http(GET, "/search")]
    async fn search(&self, query: Query<Order>) -> Result<()> {
        let _ = query;
        Ok(())
    }

    #[http(GET, "/answer")]
    async fn answer(&self, response: Response) -> Result<Response> {
        Ok(response)
    }

    #[http(GET, "/mine")]
    async fn mine(&self, user: User) -> Result<()> {
        let _ = user;
        Ok(())
    }

    #[http(GET, "/first")]
    async fn first(&self) -> Result<Order> {
        Ok(Order)
    }

    #[http(GET, "/count")]
    async fn count(&self) -> Result<u64> {
        Ok(1)
    }

    #[http(GET, "/json")]
    async fn json(&self) -> Result<Json<Order>> {
        Ok(Json(Order))
    }

    #[http(GET, "/made")]
    async fn made(&self) -> Result<(&'static str, String)> {
        Ok(("201", String::new()))
    }

    #[http(GET, "/labelled")]
    async fn labelled(&self) -> Result<(u16, (&'static str, &'static str), String)> {
        Ok((200, ("x-tag", "x"), String::new()))
    }
}

fn main() {}
