//! The hello service over HTTP on axum.

use std::net::SocketAddr;

use crate::hello::Failure;
use axum::{Json, Router, extract::Path, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves until the process is stopped.
#[tokio::main]
pub(crate) async fn run(address: SocketAddr) -> Result<(), Failure> {
    let app = Router::new().route("/hello/{name}", get(hello));
    Ok(axum::serve(TcpListener::bind(address).await?, app).await?)
}

async fn hello(Path(name): Path<String>) -> Json<Value> {
    Json(json!({"greeting": format!("Hello, {name}!")}))
}
