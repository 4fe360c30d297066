//! A message to publish.

use bytes::Bytes;

use crate::properties::Properties;

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    /// The exchange, `""` for the default one.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// It is an error when no queue takes the message.
    pub mandatory: bool,
    /// Its properties.
    pub properties: Properties,
    /// Its body.
    pub body: Bytes,
}
