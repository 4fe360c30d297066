//! Header names, routing keys and call ids.

use uuid::Uuid;

/// Prefix of the headers that carry context data.
pub(crate) const HEADER_PREFIX: &str = "nameko.";
/// The header with the ids of the calls that led to this one, oldest first.
pub(crate) const CALL_ID_STACK: &str = "call_id_stack";
/// The well-known keys of context data. Source: `nameko/constants.py` of 2.14.1.
pub(crate) const LANGUAGE: &str = "language";
pub(crate) const USER_ID: &str = "user_id";
pub(crate) const USER_AGENT: &str = "user_agent";
pub(crate) const AUTH_TOKEN: &str = "auth_token";
/// Default length of the call id stack in callers. Config key: `parent_calls_tracked`.
pub(crate) const PARENT_CALLS_TRACKED: usize = 10;
/// The owner in the reply queue names and call ids of standalone clients.
pub(crate) const STANDALONE: &str = "standalone_rpc_proxy";

/// Returns the routing key of a request.
pub(crate) fn request_key(service: &str, method: &str) -> String {
    format!("{service}.{method}")
}

/// Returns the method in a routing key: its last dotted part.
pub(crate) fn method_of(routing_key: &str) -> &str {
    routing_key.rsplit('.').next().unwrap_or(routing_key)
}

/// Returns a new call id: `{service}.{method}.{uuid4}`.
pub(crate) fn call_id(service: &str, method: &str) -> String {
    let mut buffer = Uuid::encode_buffer();
    let unique = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    [service, method, unique].join(".")
}
