//! Properties of published messages.

use bytes::Bytes;

use crate::{
    amqp::{Properties, Table},
    serialization::{COMPRESSION_HEADER, Encoded},
};

/// Returns the properties and the body of a persistent message.
pub(crate) fn message(encoded: Encoded, mut headers: Table) -> (Properties, Bytes) {
    if let Some(compression) = encoded.compression {
        headers.insert(COMPRESSION_HEADER, compression.content_type());
    }
    let properties = Properties {
        content_type: Some(encoded.content_type),
        content_encoding: Some(encoded.content_encoding),
        headers,
        ..default_properties()
    };
    (properties, encoded.body.into())
}

/// Returns the defaults of every message: persistent, with the lowest priority.
pub fn default_properties() -> Properties {
    Properties {
        delivery_mode: Some(2),
        priority: Some(0),
        ..Properties::default()
    }
}
