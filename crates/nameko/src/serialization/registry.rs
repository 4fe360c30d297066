//! The registry of custom formats.

use std::sync::{Arc, PoisonError, RwLock};

use erased_serde::Serialize as DynSerialize;

use super::{Error, Payload};

/// A custom message format, added with [`register`].
///
/// ```
/// use nameko::serialization::{self, DynSerialize, Error, Payload, Serializer};
///
/// /// JSON in capital letters.
/// struct UpperJson;
///
/// impl Serializer for UpperJson {
///     fn name(&self) -> &str {
///         "upper-json"
///     }
///
///     fn content_type(&self) -> &str {
///         "application/x-upper-json"
///     }
///
///     fn encode(&self, value: &dyn DynSerialize) -> Result<Vec<u8>, Error> {
///         Ok(serialization::to_vec(value)?.to_ascii_uppercase())
///     }
///
///     fn decode(&self, body: &[u8]) -> Result<Payload, Error> {
///         serialization::from_slice(&body.to_ascii_lowercase())
///     }
/// }
///
/// serialization::register(UpperJson);
/// ```
pub trait Serializer: Send + Sync + 'static {
    /// Returns the name for the config keys `serializer` and `ACCEPT`.
    fn name(&self) -> &str;

    /// Returns the MIME type for the `content_type` of messages.
    fn content_type(&self) -> &str;

    /// Returns the character set of the output, or `binary`.
    fn content_encoding(&self) -> &str {
        "utf-8"
    }

    /// Serializes a value.
    ///
    /// # Errors
    /// [`Error::write`] if the format cannot represent the value.
    fn encode(&self, value: &dyn DynSerialize) -> Result<Vec<u8>, Error>;

    /// Deserializes `body`, which must hold exactly one value.
    ///
    /// A [`Payload`] can be deserialized from any self-describing serde format.
    ///
    /// # Errors
    /// [`Error::read`] if `body` is malformed.
    fn decode(&self, body: &[u8]) -> Result<Payload, Error>;
}

/// Registers a format for the whole process.
///
/// Replaces formats of the same name or content type, as kombu does.
pub fn register(serializer: impl Serializer) {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    registered.retain(|other| {
        other.name() != serializer.name() && other.content_type() != serializer.content_type()
    });
    registered.push(Arc::new(serializer));
}

static REGISTERED: RwLock<Vec<Arc<dyn Serializer>>> = RwLock::new(Vec::new());

pub(super) fn named(name: &str) -> Option<Arc<dyn Serializer>> {
    find(|serializer| serializer.name() == name)
}

pub(super) fn of_content_type(content_type: &str) -> Option<Arc<dyn Serializer>> {
    find(|serializer| serializer.content_type().eq_ignore_ascii_case(content_type))
}

fn find(matches: impl Fn(&dyn Serializer) -> bool) -> Option<Arc<dyn Serializer>> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    registered
        .iter()
        .find(|serializer| matches(&***serializer))
        .cloned()
}
