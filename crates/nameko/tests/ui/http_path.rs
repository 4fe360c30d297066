//! Each parameter in a path is a parameter of the method.

use nameko::{
    prelude::*,
    web::{Json, Query, Request},
};

#[derive(Dependencies)]
struct Orders;

#[service("orders")]
impl Orders {
    #[http(GET, "/orders/{id}")]
    async fn typo(&self, iid: u64) -> Result<()> {
        let _ = iid;
        Ok(())
    }

    #[http(PUT, "/orders/{id}/items/{item}")]
    async fn missing(&self, id: u64, count: Json<u64>) -> Result<()> {
        let _ = (id, count);
        Ok(())
    }

    #[http(GET, "/files/{*rest}")]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }

    #[http(GET, "/whole/{id}")]
    async fn whole(&self, request: Request) -> Result<String> {
        Ok(request.path_param("id").unwrap_or_default().to_owned())
    }

    #[http(GET, "/right/{id}")]
    async fn right(&self, id: u64, page: Query<Vec<(String, u8)>>) -> Result<()> {
        let _ = (id, page);
        Ok(())
    }
}

fn main() {}
