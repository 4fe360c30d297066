//! The codec of a container or client: the format it writes and the formats it accepts.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Encoded, Error, Payload, charset,
    compression::{COMPRESSION_HEADER, Compression, MAX_DECOMPRESSED_KEY},
    content_type::{self, RAW, TEXT},
    format::{self, Format},
};
use crate::{
    amqp::{Properties, Value},
    config::{Config, ConfigError},
};

/// Default limit of a decompressed body, in bytes.
const MAX_DECOMPRESSED_BYTES: usize = 64 << 20;
/// Serializes and deserializes message bodies: one format to write, a list of formats to accept.
///
/// ```
/// use nameko::{Config, serialization::Codec};
///
/// let config = Config::default()
///     .with("serializer", "msgpack")
///     .with("ACCEPT", vec!["msgpack", "json"]);
/// let codec = Codec::of(&config)?;
/// let message = codec.encode(&("paid", 17))?;
/// assert_eq!(message.content_type, "application/x-msgpack");
/// # Ok::<(), nameko::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Codec {
    format: Format,
    accepted: Vec<Format>,
    /// Limit of a decompressed body, in bytes.
    max_decompressed: usize,
}

impl Codec {
    /// Creates the codec that the configuration selects.
    ///
    /// `serializer` (default: `json`) is the format to write, `ACCEPT` (default: the same one)
    /// lists the formats to read. `SERIALIZERS`, where Python services register custom formats, may
    /// only name formats that this program has [`register`](super::register)ed.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if a format is not registered.
    pub fn of(config: &Config) -> Result<Arc<Self>, ConfigError> {
        for name in config
            .get("SERIALIZERS")
            .and_then(|serializers| serializers.as_object())
            .into_iter()
            .flat_map(|serializers| serializers.keys())
        {
            known(config, "SERIALIZERS", name)?;
        }
        let name = config.str("serializer")?.unwrap_or("json");
        let format = known(config, "serializer", name)?;
        let accepted = match config.get("ACCEPT") {
            None | Some(serde_json::Value::Null) => vec![format.clone()],
            Some(serde_json::Value::Array(names)) => names
                .iter()
                .map(|name| match name.as_str() {
                    Some(name) => known(config, "ACCEPT", name),
                    None => Err(config.invalid("ACCEPT", format!("lists {name}, not a string"))),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => {
                return Err(config.invalid(
                    "ACCEPT",
                    "must be a list of formats, such as [json, msgpack]",
                ));
            }
        };
        let max_decompressed = match config.int(MAX_DECOMPRESSED_KEY)? {
            None => MAX_DECOMPRESSED_BYTES,
            Some(bytes) => usize::try_from(bytes).map_err(|_| {
                config.invalid(MAX_DECOMPRESSED_KEY, "must be a number of bytes, 0 or more")
            })?,
        };
        Ok(Arc::new(Self {
            format,
            accepted,
            max_decompressed,
        }))
    }

    /// Creates a codec that writes and accepts one format: `json`, `msgpack`, `raw` (text or bytes,
    /// unchanged), or a [`register`](super::register)ed one.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if the format is not registered.
    pub fn named(name: &str) -> Result<Arc<Self>, ConfigError> {
        let format = known(&Config::default(), "serializer", name)?;
        Ok(Arc::new(Self {
            accepted: vec![format.clone()],
            format,
            max_decompressed: MAX_DECOMPRESSED_BYTES,
        }))
    }

    /// Returns a copy that writes another format, and accepts it in addition to the others.
    ///
    /// # Errors
    /// As for [`named`](Self::named).
    pub fn writing(&self, name: &str) -> Result<Arc<Self>, ConfigError> {
        let format = known(&Config::default(), "serializer", name)?;
        let mut accepted = self.accepted.clone();
        accepted.push(format.clone());
        Ok(Arc::new(Self {
            format,
            accepted,
            max_decompressed: self.max_decompressed,
        }))
    }

    /// Serializes a value.
    ///
    /// # Errors
    /// If the format cannot represent the value: [`Error::is_write`].
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Encoded, Error> {
        self.format.encode(value)
    }

    /// Decompresses and deserializes the body of a message.
    ///
    /// The header `compression` selects the decompressor and the content type the format, which
    /// must be accepted. `application/data` and `application/text` are always accepted; a message
    /// without a content type counts as `application/data`. Both yield text, or bytes if the
    /// content encoding is `binary`. Text, JSON among it, is read in its content encoding: UTF-8,
    /// UTF-16, Latin-1, ISO 8859-15 or Windows-1252.
    ///
    /// # Errors
    /// If the body cannot be decompressed, its format is not accepted, or its content is malformed:
    /// [`Error::is_unreadable`].
    pub fn decode(&self, properties: &Properties, body: &Bytes) -> Result<Payload, Error> {
        let content_type = properties.content_type.as_deref().unwrap_or(RAW);
        if [RAW, TEXT].contains(&content_type) {
            let body = self.decompress(properties, body)?;
            return format::text(properties.content_encoding.as_deref(), &body);
        }
        let format = self.accepted(content_type)?;
        format.decode(&self.plain(format, properties, body)?)
    }

    /// Like [`decode`](Self::decode), for messages written by this program: accepts every known
    /// format.
    pub(crate) fn read_own(&self, properties: &Properties, body: &Bytes) -> Result<Payload, Error> {
        match properties.content_type.as_deref() {
            Some(RAW) => self.decode(properties, body),
            _ => {
                let format = self.reply_format(properties);
                format.decode(&self.plain(&format, properties, body)?)
            }
        }
    }

    /// Returns a body as its format reads it: decompressed, and text in UTF-8.
    pub(crate) fn plain(
        &self,
        format: &Format,
        properties: &Properties,
        body: &Bytes,
    ) -> Result<Bytes, Error> {
        let body = self.decompress(properties, body)?;
        if !format.is_text() {
            return Ok(body);
        }
        match charset::to_utf_8(properties.content_encoding.as_deref(), &body)? {
            Cow::Borrowed(text) => Ok(body.slice_ref(text)),
            Cow::Owned(text) => Ok(text.into()),
        }
    }

    /// Returns the decompressed body.
    fn decompress(&self, properties: &Properties, body: &Bytes) -> Result<Bytes, Error> {
        match properties.headers.get(COMPRESSION_HEADER) {
            None | Some(Value::Null) => Ok(body.clone()),
            Some(Value::String(name)) if name.is_empty() => Ok(body.clone()),
            Some(Value::String(name)) => match Compression::named(name) {
                Some(compression) => {
                    Ok(compression.decompress(body, self.max_decompressed)?.into())
                }
                None => Err(Error::read(format_args!(
                    "its compression `{name}` is not known: send {} or {}",
                    Compression::Gzip,
                    Compression::Bzip2,
                ))),
            },
            Some(other) => Err(Error::read(format_args!(
                "its header `{}` is {other:?}, not a string",
                COMPRESSION_HEADER
            ))),
        }
    }

    /// Looks up the accepted format of a content type.
    pub(crate) fn accepted(&self, content_type: &str) -> Result<&Format, Error> {
        self.accepted
            .iter()
            .find(|format| content_type::matches(content_type, &format.content_type()))
            .ok_or_else(|| {
                let accepted: Vec<_> = self.accepted.iter().map(Format::content_type).collect();
                Error::content_type(content_type, accepted.join(" or "))
            })
    }

    /// Selects the format of the reply to a request: the request's own format if it is known,
    /// accepted or not, else the one that this codec writes.
    pub(crate) fn reply_format(&self, request: &Properties) -> Format {
        let content_type = request.content_type.as_deref();
        content_type
            .and_then(|content_type| {
                self.accepted(content_type)
                    .ok()
                    .cloned()
                    .or_else(|| Format::of_content_type(content_type))
            })
            .unwrap_or_else(|| self.format.clone())
    }

    /// The format to write.
    pub(crate) fn format(&self) -> &Format {
        &self.format
    }
}

/// Looks up the format that the config key `key` names.
fn known(config: &Config, key: &str, name: &str) -> Result<Format, ConfigError> {
    Format::named(name).ok_or_else(|| match name {
        // Known, but disabled.
        "msgpack" => config.invalid(
            key,
            "has the format `msgpack`, which needs the feature `msgpack` of the crate nameko",
        ),
        _ => config.invalid(
            key,
            format!(
                "is not known: Please register a serializer for \"{name}\" format, or use json or msgpack"
            ),
        ),
    })
}
