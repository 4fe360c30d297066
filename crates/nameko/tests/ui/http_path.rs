//! Each parameter in a path is a parameter of the method.

use nameko::{
    prelude::*,
    web::{AsyncFromRequest, Json, Query, Request},
};

const ORDER: &str = "/orders/{id}";

mod paths {
    pub const ITEM: &str = concat!("/items", "/{item}");
    pub static FILE: &str = "/files/{*rest}";
}

struct Token;

impl AsyncFromRequest<Orders> for Token {
    const READS_PATH: bool = false;

    async fn from_request(
        _: &mut Request,
        _: &'static str,
        _: &WorkerContext,
        _: &Orders,
    ) -> Result<Self> {
        Ok(Self)
    }
}

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

    #[http(DELETE, ORDER)]
    async fn constant(&self, order: u64, token: Token) -> Result<()> {
        let _ = (order, token);
        Ok(())
    }

    #[http(GET, paths::ITEM)]
    async fn in_module(&self) -> Result<()> {
        Ok(())
    }

    #[http(PATCH, paths::FILE)]
    async fn in_static(&self, #[cfg(unix)] path: String, #[cfg(not(unix))] rest: String) -> Result<()> {
        let _ = path;
        Ok(())
    }

    #[http(GET, concat!("/a", "/{id}"))]
    async fn concatenated(&self) -> Result<()> {
        Ok(())
    }

    #[http(POST, ORDER)]
    async fn constant_right(&self, id: u64, token: Token) -> Result<()> {
        let _ = (id, token);
        Ok(())
    }

    #[http(GET, format!("/computed/{{id}}"))]
    async fn computed(&self) -> Result<()> {
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
