//! A value that came in a message and was not read yet.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Error, json, message_pack, transcode::Transcode};

/// A value that came in a message, not yet read as a type of ours.
///
/// It can be read from any self-describing format of serde's, which is how a [`Serializer`](super::Serializer) of your
/// own makes one.
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
enum Content {
    /// In the [`standard`](json::standard) form.
    Json(Box<RawValue>),
    /// One value that was walked through once, so that it is whole. What other formats are turned into, too.
    MessagePack(Bytes),
}

/// A value taken apart, one level deep. One by one: a peer may send many.
pub(crate) enum Parts {
    List(Box<dyn Iterator<Item = Payload>>),
    Map(Box<dyn Iterator<Item = (Payload, Payload)>>),
    /// Neither of them.
    Other,
}

impl Payload {
    /// A value of ours.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        json::to_raw(value).map(Self::json)
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// It is none.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match &self.0 {
            Content::Json(text) => json::from_str(text.get()),
            Content::MessagePack(value) => message_pack::read(value),
        }
    }

    /// The value as JSON text in the [`standard`](super::standard) form: bytes as a list of numbers, keys as text.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn to_json(&self) -> Result<Box<RawValue>, Error> {
        match &self.0 {
            Content::Json(text) => Ok(text.clone()),
            Content::MessagePack(_) => json::to_raw(self),
        }
    }

    /// The value that stands for nothing.
    pub(crate) fn null() -> Self {
        Self::message_pack(Bytes::from_static(&[NIL]))
    }

    pub(crate) fn json(text: Box<RawValue>) -> Self {
        Self(Content::Json(text))
    }

    /// Of one whole value.
    pub(super) fn message_pack(value: Bytes) -> Self {
        Self(Content::MessagePack(value))
    }

    /// A value of ours, with bytes as bytes and keys as they are.
    pub(crate) fn packed<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        message_pack::to_vec(value).map(|it| Self::message_pack(it.into()))
    }

    /// The text, where it is JSON.
    pub(crate) fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Content::Json(text) => Some(text.get()),
            Content::MessagePack(_) => None,
        }
    }

    /// The bytes, where it is MessagePack.
    fn as_packed(&self) -> Option<&[u8]> {
        match &self.0 {
            Content::Json(_) => None,
            Content::MessagePack(value) => Some(value),
        }
    }

    /// Whether Python takes it for false: nothing, no, zero, or empty. Not for JSON.
    pub(crate) fn is_falsy(&self) -> bool {
        const FALSE: u8 = 0xc2;
        const EMPTY: [u8; 3] = [0x80, 0x90, 0xa0];
        match self.as_packed() {
            Some([one]) => [NIL, FALSE, 0].contains(one) || EMPTY.contains(one),
            _ => false,
        }
    }

    /// What it is, in a sentence. Not for JSON.
    pub(crate) fn kind(&self) -> &'static str {
        self.as_packed()
            .map_or("JSON", |it| message_pack::kind(message_pack::marker(it)))
    }

    /// Takes it apart. Not for JSON, which is better read as what one expects.
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

/// MessagePack's null.
const NIL: u8 = 0xc0;

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Content::Json(text) => json::transcode(text.get(), serializer),
            Content::MessagePack(value) => message_pack::transcode(value, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::packed(&Transcode::new(deserializer)).map_err(serde::de::Error::custom)
    }
}
