//! A serialized message body.

use super::{Compression, Error};
use crate::amqp::Text;

/// A serialized message body with the properties that describe it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The body.
    pub body: Vec<u8>,
    /// MIME type of the body before compression.
    pub content_type: Text,
    /// Character set of the body, or `binary`.
    pub content_encoding: Text,
    /// Compression of the body; goes into the header `compression`.
    pub compression: Option<Compression>,
}

impl Encoded {
    /// Compresses the body.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn compress(self, compression: Compression) -> Result<Self, Error> {
        Ok(Self {
            body: compression.compress(&self.body)?,
            compression: Some(compression),
            ..self
        })
    }
}
