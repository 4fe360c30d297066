//! The hello service on Nameko, over HTTP.

use nameko::{prelude::*, web::Json};
use serde_json::{Value, json};

#[derive(Dependencies)]
struct HelloService;

#[service("bench_http_nameko")]
impl HelloService {
    #[http(GET, "/hello/{name}")]
    async fn hello(&self, name: String) -> Result<Json<Value>> {
        Ok(Json(json!({"greeting": format!("Hello, {name}!")})))
    }
}

fn main() -> ExitCode {
    nameko::main(services![HelloService])
}
