//! How values become the bodies of messages, and back.
//!
//! A message says in its properties how its body is written: `content_type` and `content_encoding`. A service writes in one
//! format, the config key `serializer` (`json` unless it says otherwise), and reads those that the config key `ACCEPT` lists
//! (by default that one only). [`Codec`] is both.
//!
//! JSON is written and read as Python's `json` module does: [`to_vec`], [`from_slice`]. [`register`] adds formats of your own.

mod codec;
mod compression;
mod error;
mod format;
mod json;
mod message_pack;
mod payload;
mod registry;
mod transcode;

pub use self::codec::{Codec, Encoded};
pub use self::compression::Compression;
pub use self::error::Error;
pub(crate) use self::format::Format;
pub use self::json::{from_slice, from_str, python, standard, to_raw, to_vec};
pub(crate) use self::json::{json_kind, python_float, received};
pub(crate) use self::payload::Parts;
pub use self::payload::Payload;
pub use self::registry::{Serializer, register};
/// What a [`Serializer`] is given to write: any value that serde serialises.
pub use erased_serde::Serialize as DynSerialize;
