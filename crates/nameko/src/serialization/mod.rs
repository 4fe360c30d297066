//! Serialization of message bodies.
//!
//! The properties `content_type` and `content_encoding` of a message name the format of its body.
//! A service writes one format, set by the config key `serializer` (default: `json`), and reads the
//! formats listed under the config key `ACCEPT` (default: the same one). A [`Codec`] holds both.
//!
//! JSON is written and read as by Python's `json` module: [`to_vec`], [`from_slice`]. [`register`]
//! adds custom formats.

mod charset;
mod codec;
mod compression;
mod content_type;
mod encoded;
mod error;
mod format;
mod json;
#[cfg(feature = "msgpack")]
mod message_pack;
mod payload;
mod registry;
mod transcode;

pub use self::codec::Codec;
pub(crate) use self::compression::COMPRESSION_HEADER;
pub use self::compression::Compression;
#[cfg(feature = "cron")]
pub(crate) use self::content_type::UTF_8;
pub(crate) use self::content_type::{BINARY, JSON, RAW, TEXT};
pub use self::encoded::Encoded;
pub use self::error::Error;
pub(crate) use self::format::Format;
pub(crate) use self::json::{approximate_value, json_kind, python_float, received};
pub use self::json::{from_slice, from_str, python, standard, to_raw, to_vec};
pub(crate) use self::payload::Content;
#[cfg(feature = "msgpack")]
pub(crate) use self::payload::Parts;
pub use self::payload::Payload;
pub use self::registry::{Serializer, register};
/// Any value that serde serializes, behind a trait object: the input of [`Serializer::encode`].
pub use erased_serde::Serialize as DynSerialize;
