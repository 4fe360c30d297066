//! What a container or client writes in, and what it accepts.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{
    Compression, Error, Payload,
    format::{self, Format},
};
use crate::{
    amqp::{Properties, Text, Value},
    config::{Config, ConfigError},
    protocol,
};

/// How long a compressed body may become, unless the config key says otherwise.
const LIMIT: usize = 64 << 20;
/// The config key of that limit, in bytes.
pub(super) const LIMIT_KEY: &str = "max_decompressed_size";

/// What a container or client serialises with: one format to write, and those it accepts.
///
/// ```
/// use nameko::{Config, serialization::Codec};
///
/// let config = Config::default().with("serializer", "msgpack").with("ACCEPT", vec!["msgpack", "json"]);
/// let codec = Codec::of(&config)?;
/// let message = codec.encode(&("paid", 17))?;
/// assert_eq!(message.content_type, "application/x-msgpack");
/// # Ok::<(), nameko::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Codec {
    format: Format,
    accepted: Vec<Format>,
    /// How many bytes a compressed body may become.
    limit: usize,
}

/// The body of a message, and what its properties say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The body.
    pub body: Vec<u8>,
    /// The MIME type of what was written, before compression.
    pub content_type: Text,
    /// Its character set, or `binary`.
    pub content_encoding: Text,
    /// How the body was made smaller. To be told in the header `compression`.
    pub compression: Option<Compression>,
}

impl Codec {
    /// What the configuration asks for: `serializer` (by default `json`) is written, `ACCEPT` (by default that one only)
    /// lists what is read. `SERIALIZERS`, in which Python services name the code of their own formats, may name only
    /// formats that this program has [`register`](super::register)ed.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] where a format is named that nobody registered.
    pub fn of(config: &Config) -> Result<Arc<Self>, ConfigError> {
        for name in config
            .get("SERIALIZERS")
            .and_then(|it| it.as_object())
            .into_iter()
            .flat_map(|it| it.keys())
        {
            known(config, "SERIALIZERS", name)?;
        }
        let name = config.str("serializer")?.unwrap_or("json");
        let format = known(config, "serializer", name)?;
        let accepted = match config.get("ACCEPT") {
            None | Some(serde_json::Value::Null) => vec![format.clone()],
            Some(serde_json::Value::Array(names)) => names
                .iter()
                .map(|it| match it.as_str() {
                    Some(name) => known(config, "ACCEPT", name),
                    None => Err(config.invalid("ACCEPT", format!("lists {it}, which is no text"))),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => {
                return Err(config.invalid(
                    "ACCEPT",
                    "must be a list of formats, such as [json, msgpack]",
                ));
            }
        };
        let limit = match config.int(LIMIT_KEY)? {
            None => LIMIT,
            Some(bytes) => usize::try_from(bytes)
                .map_err(|_| config.invalid(LIMIT_KEY, "must be a number of bytes, 0 or more"))?,
        };
        Ok(Arc::new(Self {
            format,
            accepted,
            limit,
        }))
    }

    /// Writes and accepts the format of that name, whatever the configuration says: `json`, `msgpack`, `raw` (text or bytes
    /// as they are), or one that was [`register`](super::register)ed.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] where nobody registered it.
    pub fn named(name: &str) -> Result<Arc<Self>, ConfigError> {
        let format = known(&Config::default(), "serializer", name)?;
        Ok(Arc::new(Self {
            accepted: vec![format.clone()],
            format,
            limit: LIMIT,
        }))
    }

    /// The same, but writes the format of that name, and accepts it beside the others.
    ///
    /// # Errors
    /// As of [`named`](Self::named).
    pub fn writing(&self, name: &str) -> Result<Arc<Self>, ConfigError> {
        let format = known(&Config::default(), "serializer", name)?;
        let mut accepted = self.accepted.clone();
        accepted.push(format.clone());
        Ok(Arc::new(Self {
            format,
            accepted,
            limit: self.limit,
        }))
    }

    /// Writes a value.
    ///
    /// # Errors
    /// The value has no form in the format: [`Error::is_write`].
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Encoded, Error> {
        self.format.encode(value)
    }

    /// Reads the body of a message: decompresses it as its header `compression` says, and reads it as its content type
    /// says, if that is accepted here. `application/data` and `application/text` always are, and a message without a
    /// content type counts as the former: they are text, or bytes where the content encoding is `binary`.
    ///
    /// # Errors
    /// [`Error::is_unreadable`], with what is wrong.
    pub fn decode(&self, properties: &Properties, body: &Bytes) -> Result<Payload, Error> {
        let body = self.decompress(properties, body)?;
        let content_type = properties.content_type.as_deref().unwrap_or(protocol::RAW);
        if [protocol::RAW, protocol::TEXT].contains(&content_type) {
            return format::text(properties.content_encoding.as_deref(), &body);
        }
        self.accepted(content_type)?.decode(&body)
    }

    /// As [`decode`](Self::decode), for a message that this program wrote: in any format that it knows.
    pub(crate) fn read_own(&self, properties: &Properties, body: &Bytes) -> Result<Payload, Error> {
        match properties.content_type.as_deref() {
            Some(protocol::RAW) => self.decode(properties, body),
            _ => self
                .reply_format(properties)
                .decode(&self.decompress(properties, body)?),
        }
    }

    /// The body as it was before it was compressed.
    pub(crate) fn decompress(&self, properties: &Properties, body: &Bytes) -> Result<Bytes, Error> {
        match properties.headers.get(protocol::COMPRESSION) {
            None | Some(Value::Null) => Ok(body.clone()),
            Some(Value::String(name)) if name.is_empty() => Ok(body.clone()),
            Some(Value::String(name)) => match Compression::named(name) {
                Some(compression) => Ok(compression.decompress(body, self.limit)?.into()),
                None => Err(Error::read(format_args!(
                    "its compression `{name}` is not known: send {} or {}",
                    Compression::Gzip,
                    Compression::Bzip2,
                ))),
            },
            Some(other) => Err(Error::read(format_args!(
                "its header `{}` is {other:?}, which is no text",
                protocol::COMPRESSION
            ))),
        }
    }

    /// The accepted format of that content type.
    pub(crate) fn accepted(&self, content_type: &str) -> Result<&Format, Error> {
        self.accepted
            .iter()
            .find(|it| protocol::is_type(content_type, &it.content_type()))
            .ok_or_else(|| {
                let accepted: Vec<_> = self.accepted.iter().map(Format::content_type).collect();
                Error::content_type(content_type, accepted.join(" or "))
            })
    }

    /// What the reply to a request is written in: as the request is, where we know how that is, accepted or not.
    pub(crate) fn reply_format(&self, request: &Properties) -> Format {
        let content_type = request.content_type.as_deref();
        content_type
            .and_then(|it| {
                self.accepted(it)
                    .ok()
                    .cloned()
                    .or_else(|| Format::of_content_type(it))
            })
            .unwrap_or_else(|| self.format.clone())
    }

    /// What is written.
    pub(crate) fn format(&self) -> &Format {
        &self.format
    }
}

impl Encoded {
    /// The same with a smaller body.
    ///
    /// # Errors
    /// The compressor's own.
    pub fn compress(self, compression: Compression) -> Result<Self, Error> {
        Ok(Self {
            body: compression.compress(&self.body)?,
            compression: Some(compression),
            ..self
        })
    }
}

/// The format of that name, which stands under `key`.
fn known(config: &Config, key: &str, name: &str) -> Result<Format, ConfigError> {
    Format::named(name).ok_or_else(|| {
        config.invalid(
            key,
            format!(
                "is not known: Please register a serializer for \"{name}\" format, or name one that there is: json, msgpack"
            ),
        )
    })
}
