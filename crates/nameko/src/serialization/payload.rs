//! A received value that is not deserialized yet.

#[cfg(feature = "msgpack")]
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

#[cfg(feature = "msgpack")]
use super::message_pack;
use super::{Error, json, transcode::Transcode};

/// A received value that is not deserialized yet.
///
/// Deserializes from any self-describing serde format, so a custom
/// [`Serializer`](super::Serializer) can produce it.
///
/// ```
/// use nameko::serialization::{Payload, from_str};
///
/// let payload: Payload = from_str("[1, 2]")?;
/// assert_eq!(payload.read::<Vec<u8>>()?, [1, 2]);
/// # Ok::<(), nameko::serialization::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Payload(Content);

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// JSON text in the [`standard`](json::standard) form. Without the feature `msgpack`, custom
    /// formats are transcoded to it.
    Json(Box<RawValue>),
    /// One complete, validated MessagePack value; custom formats are transcoded to it.
    #[cfg(feature = "msgpack")]
    MessagePack(Bytes),
}

/// The top level of a MessagePack value. Lazy, since a peer may send many items.
#[cfg(feature = "msgpack")]
pub(crate) enum Parts {
    List(Box<dyn Iterator<Item = Payload>>),
    Map(Box<dyn Iterator<Item = (Payload, Payload)>>),
    /// Neither a list nor a map.
    Other,
}

impl Payload {
    /// Serializes a value.
    ///
    /// # Errors
    /// If JSON cannot represent the value.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        json::to_raw(value).map(Self::json)
    }

    /// Deserializes the value as a `T`.
    ///
    /// # Errors
    /// If the value is not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match &self.0 {
            Content::Json(text) => json::from_str(text.get()),
            #[cfg(feature = "msgpack")]
            Content::MessagePack(value) => message_pack::read(value),
        }
    }

    /// Returns the value as JSON text in the [`standard`](super::standard) form, with bytes as a
    /// list of numbers and keys as text.
    ///
    /// # Errors
    /// If JSON cannot represent the value.
    pub fn to_json(&self) -> Result<Box<RawValue>, Error> {
        match &self.0 {
            Content::Json(text) => Ok(text.clone()),
            #[cfg(feature = "msgpack")]
            Content::MessagePack(_) => json::to_raw(self),
        }
    }

    /// Returns the null value.
    pub(crate) fn null() -> Self {
        #[cfg(feature = "msgpack")]
        let null = Self::message_pack(Bytes::from_static(&[message_pack::NIL]));
        #[cfg(not(feature = "msgpack"))]
        let null = Self::json(RawValue::NULL.to_owned());
        null
    }

    /// Wraps the JSON value in a message body, which must hold exactly one.
    pub(super) fn from_json_body(body: &[u8]) -> Result<Self, Error> {
        RawValue::from_string(json::received(body)?.into_owned())
            .map(Self::json)
            .map_err(Error::json_read)
    }

    /// Wraps the MessagePack value in a message body, which must hold exactly one.
    #[cfg(feature = "msgpack")]
    pub(super) fn from_message_pack_body(body: &Bytes) -> Result<Self, Error> {
        message_pack::validate(body)?;
        Ok(Self::message_pack(body.clone()))
    }

    pub(crate) fn json(text: Box<RawValue>) -> Self {
        Self(Content::Json(text))
    }

    /// Wraps one complete MessagePack value.
    #[cfg(feature = "msgpack")]
    fn message_pack(value: Bytes) -> Self {
        Self(Content::MessagePack(value))
    }

    /// Serializes a value as MessagePack, which keeps bytes and non-text keys.
    #[cfg(feature = "msgpack")]
    pub(crate) fn packed<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        message_pack::to_vec(value).map(|packed| Self::message_pack(packed.into()))
    }

    /// Serializes a value as JSON, where MessagePack is not available.
    #[cfg(not(feature = "msgpack"))]
    pub(crate) fn packed<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Self::of(value)
    }

    /// Returns the representation of the value.
    pub(crate) fn content(&self) -> &Content {
        &self.0
    }

    /// Returns `true` for values that are false in Python: null, false, zero, empty.
    ///
    /// Supports MessagePack only.
    #[cfg(feature = "msgpack")]
    pub(crate) fn is_falsy(&self) -> bool {
        const FALSE: u8 = 0xc2;
        const EMPTY: [u8; 3] = [0x80, 0x90, 0xa0];
        match &self.0 {
            Content::MessagePack(value) => match **value {
                [one] => [message_pack::NIL, FALSE, 0].contains(&one) || EMPTY.contains(&one),
                _ => false,
            },
            Content::Json(_) => false,
        }
    }

    /// Returns the kind of the value, as a phrase for error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.0 {
            Content::Json(text) => json::json_kind(text.get()),
            #[cfg(feature = "msgpack")]
            Content::MessagePack(value) => message_pack::kind(message_pack::marker(value)),
        }
    }

    /// Splits a MessagePack list or map into its items.
    ///
    /// JSON is not split: callers deserialize it into the type they expect.
    #[cfg(feature = "msgpack")]
    pub(crate) fn parts(&self) -> Parts {
        let Content::MessagePack(value) = &self.0 else {
            return Parts::Other;
        };
        let mut items = message_pack::items(value).map(Self::message_pack);
        match self.kind() {
            "a list" => Parts::List(Box::new(items)),
            "a map" => {
                let pair = move || Some((items.next()?, items.next()?));
                Parts::Map(Box::new(std::iter::from_fn(pair)))
            }
            _ => Parts::Other,
        }
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Content::Json(text) => json::transcode(text.get(), serializer),
            #[cfg(feature = "msgpack")]
            Content::MessagePack(value) => message_pack::transcode(value, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::packed(&Transcode::new(deserializer)).map_err(serde::de::Error::custom)
    }
}
