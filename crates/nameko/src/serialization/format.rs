//! A message format: serializes values and deserializes bodies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Encoded, Error, Payload, Serializer, charset,
    content_type::{self, BINARY, JSON, RAW, UTF_8},
    json, registry,
};
#[cfg(feature = "msgpack")]
use super::{content_type::MESSAGE_PACK, message_pack};
use crate::{amqp::Text, panics};

/// A format known to the process: built in or registered.
#[derive(Clone)]
pub(crate) enum Format {
    Json,
    #[cfg(feature = "msgpack")]
    MessagePack,
    /// Text or bytes, unchanged.
    Raw,
    Registered(Arc<dyn Serializer>),
}

impl Format {
    /// Looks up a format by its name in configurations.
    pub(super) fn named(name: &str) -> Option<Self> {
        match (registry::named(name), name) {
            (Some(serializer), _) => Some(Self::Registered(serializer)),
            (None, "json") => Some(Self::Json),
            #[cfg(feature = "msgpack")]
            (None, "msgpack") => Some(Self::MessagePack),
            (None, "raw") => Some(Self::Raw),
            _ => None,
        }
    }

    /// Looks up a format by the content type of messages.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        if let Some(serializer) = registry::of_content_type(content_type) {
            return Some(Self::Registered(serializer));
        }
        let built_in = [
            Self::Json,
            #[cfg(feature = "msgpack")]
            Self::MessagePack,
        ];
        built_in
            .into_iter()
            .find(|format| content_type::matches(content_type, &format.content_type()))
    }

    pub(crate) fn content_type(&self) -> Text {
        match self {
            Self::Json => JSON.into(),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => MESSAGE_PACK.into(),
            Self::Raw => RAW.into(),
            Self::Registered(serializer) => serializer.content_type().to_owned().into(),
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Encoded, Error> {
        let body = match self {
            Self::Json => json::to_vec(value)?,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => message_pack::to_vec(value)?,
            Self::Raw => return raw(value),
            Self::Registered(serializer) => guard("writing", || {
                serializer.encode(&(&value as &dyn erased_serde::Serialize))
            })?,
        };
        Ok(self.encoded(body))
    }

    /// Wraps a body that is already in this format.
    pub(crate) fn encoded(&self, body: Vec<u8>) -> Encoded {
        let content_encoding = match self {
            Self::Json => UTF_8.into(),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => BINARY.into(),
            Self::Raw => BINARY.into(),
            Self::Registered(serializer) => serializer.content_encoding().to_owned().into(),
        };
        Encoded {
            body,
            content_type: self.content_type(),
            content_encoding,
            compression: None,
        }
    }

    /// Returns whether bodies in this format are text, in the content encoding of their message.
    pub(super) fn is_text(&self) -> bool {
        match self {
            Self::Json => true,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => false,
            Self::Raw => false,
            Self::Registered(serializer) => !charset::is_binary(serializer.content_encoding()),
        }
    }

    pub(crate) fn decode(&self, body: &Bytes) -> Result<Payload, Error> {
        match self {
            Self::Json => Payload::from_json_body(body),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => Payload::from_message_pack_body(body),
            Self::Raw => Payload::packed(&Octets(body)),
            Self::Registered(serializer) => guard("reading", || serializer.decode(body)),
        }
    }
}

/// Turns a panic of a user's serializer into an error.
fn guard<T>(action: &str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = format!(
            "the serializer panicked while {action}: {}",
            panics::message(&*panic)
        );
        Err(match action {
            "writing" => Error::write(message),
            _ => Error::read(message),
        })
    })
}

/// Encodes text as UTF-8 and bytes unchanged; refuses other types.
fn raw<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, Error> {
    let packed = Payload::packed(value)?;
    let (body, content_encoding) = match (packed.read::<String>(), packed.read::<Vec<u8>>()) {
        (Ok(text), _) => (text.into_bytes(), UTF_8),
        (_, Ok(bytes)) => (bytes, BINARY),
        _ => {
            return Err(Error::write(
                "the serializer `raw` takes text and bytes only",
            ));
        }
    };
    Ok(Encoded {
        content_encoding: content_encoding.into(),
        ..Format::Raw.encoded(body)
    })
}

/// Decodes an unserialized body to text, or to bytes if its content encoding is `binary`.
///
/// Source: `kombu.serialization.loads`.
pub(super) fn text(content_encoding: Option<&str>, body: &[u8]) -> Result<Payload, Error> {
    if content_encoding.is_some_and(charset::is_binary) {
        return Payload::packed(&Octets(body));
    }
    let text = charset::to_utf_8(content_encoding, body)?;
    let text = std::str::from_utf8(&text)
        .map_err(|error| Error::read(format_args!("its body is not UTF-8 text: {error}")))?;
    Payload::packed(text)
}

/// Serializes as bytes, not as a list of numbers.
struct Octets<'a>(&'a [u8]);

impl Serialize for Octets<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.content_type())
    }
}
