//! Names of queues, exchanges, routing keys and consumer tags.

use std::sync::Arc;

use amq_protocol::types::ShortString;

/// A shared name: of a queue, an exchange, a routing key or a consumer tag.
pub(crate) type Name = Arc<str>;

/// Converts a name to a short string. Names originate from short strings, so they fit.
pub(crate) fn short_string(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}
