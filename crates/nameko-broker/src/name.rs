//! Names: of queues, exchanges, routing keys and consumer tags.

use std::sync::Arc;

use amq_protocol::types::ShortString;

/// A name shared by everything that mentions it: of a queue, an exchange, a routing key, a consumer tag.
pub(crate) type Name = Arc<str>;

/// A name as a short string; names came in as such.
pub(crate) fn short_string(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}
