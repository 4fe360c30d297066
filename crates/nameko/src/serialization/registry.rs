//! The formats there are: those of this crate, and those that programs add.

use std::sync::{Arc, PoisonError, RwLock};

use super::{DynSerialize, Error, Payload};

/// A format of messages, to be added with [`register`].
///
/// ```
/// use nameko::serialization::{self, DynSerialize, Error, Payload, Serializer};
///
/// /// JSON in capital letters, as the tests of Nameko have it.
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
    /// What the config keys `serializer` and `ACCEPT` call it.
    fn name(&self) -> &str;

    /// What messages call it: a MIME type.
    fn content_type(&self) -> &str;

    /// The character set of what it writes, `binary` where that is no text.
    fn content_encoding(&self) -> &str {
        "utf-8"
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::write`] where the value has no form in this format.
    fn encode(&self, value: &dyn DynSerialize) -> Result<Vec<u8>, Error>;

    /// Reads the one value that `body` holds. A [`Payload`] can be read from any self-describing format that serde knows.
    ///
    /// # Errors
    /// [`Error::read`] where `body` does not hold one.
    fn decode(&self, body: &[u8]) -> Result<Payload, Error>;
}

/// Adds a format for the whole process. One of the same name or content type is replaced, as in kombu.
pub fn register(serializer: impl Serializer) {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    registered.retain(|it| {
        it.name() != serializer.name() && it.content_type() != serializer.content_type()
    });
    registered.push(Arc::new(serializer));
}

static REGISTERED: RwLock<Vec<Arc<dyn Serializer>>> = RwLock::new(Vec::new());

pub(super) fn named(name: &str) -> Option<Arc<dyn Serializer>> {
    find(|it| it.name() == name)
}

pub(super) fn of_content_type(content_type: &str) -> Option<Arc<dyn Serializer>> {
    find(|it| it.content_type().eq_ignore_ascii_case(content_type))
}

fn find(wanted: impl Fn(&dyn Serializer) -> bool) -> Option<Arc<dyn Serializer>> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    registered.iter().find(|it| wanted(&***it)).cloned()
}
