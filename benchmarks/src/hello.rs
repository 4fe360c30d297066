//! The hello service, shared by the implementations without Nameko.

use std::error::Error;

use serde_json::{Value, json};

/// The exchange of requests and replies.
pub(crate) const EXCHANGE: &str = "nameko-rpc";

/// Prefetch count of a service: Nameko's default `max_workers`.
pub(crate) const PREFETCH: u16 = 10;

/// The error type of the benchmark programs.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Returns the name of the request queue of a service.
pub(crate) fn queue(service: &str) -> String {
    format!("rpc-{service}")
}

/// Returns the binding key of the request queue.
pub(crate) fn binding(service: &str) -> String {
    format!("{service}.*")
}

/// Handles a request body and returns the reply body, both JSON envelopes of Nameko.
///
/// # Errors
///
/// If the request is not JSON, or lacks the argument `name`.
pub(crate) fn reply(request: &[u8]) -> Result<Vec<u8>, Failure> {
    let request: Value = serde_json::from_slice(request)?;
    let name = request["kwargs"]["name"]
        .as_str()
        .or_else(|| request["args"][0].as_str())
        .ok_or("a request without a name")?;
    Ok(serde_json::to_vec(
        &json!({"result": format!("Hello, {name}!"), "error": null}),
    )?)
}
