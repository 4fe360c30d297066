//! A message to publish.

use bytes::Bytes;

use crate::properties::Properties;

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    /// Name of the exchange, `""` for the default exchange. At most 255 bytes.
    pub exchange: String,
    /// Routing key. At most 255 bytes.
    pub routing_key: String,
    /// Whether an unroutable message is an error ([`PublishError::Unroutable`]) instead of being
    /// dropped by the broker.
    ///
    /// [`PublishError::Unroutable`]: crate::PublishError::Unroutable
    pub mandatory: bool,
    /// Properties, including the headers.
    pub properties: Properties,
    /// Body.
    pub body: Bytes,
}
