//! The service that is measured, as every row implements it by hand.

use std::error::Error;

use serde_json::{Value, json};

/// The exchange of requests and replies.
pub(crate) const EXCHANGE: &str = "nameko-rpc";

/// How many requests a service takes at once: Nameko's default `max_workers`.
pub(crate) const PREFETCH: u16 = 10;

/// Whatever ends a benchmark program.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The queue of a service's requests.
pub(crate) fn queue(service: &str) -> String {
    format!("rpc-{service}")
}

/// The routing key that binds it.
pub(crate) fn binding(service: &str) -> String {
    format!("{service}.*")
}

/// The body of the reply to a request for `hello`.
///
/// # Errors
///
/// The request is not one.
pub(crate) fn answer(request: &[u8]) -> Result<Vec<u8>, Failure> {
    let request: Value = serde_json::from_slice(request)?;
    let name = request["kwargs"]["name"]
        .as_str()
        .ok_or("a request without a name")?;
    Ok(serde_json::to_vec(
        &json!({"result": format!("Hello, {name}!"), "error": null}),
    )?)
}
