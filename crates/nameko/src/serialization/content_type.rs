//! Content types and encodings, as kombu names them.

/// JSON.
pub(crate) const JSON: &str = "application/json";
/// MessagePack: kombu's `msgpack`.
#[cfg(feature = "msgpack")]
pub(crate) const MESSAGE_PACK: &str = "application/x-msgpack";
/// A body that no serializer wrote: kombu's `raw`. The default for messages without a content type.
pub(crate) const RAW: &str = "application/data";
/// Text that no serializer wrote.
pub(crate) const TEXT: &str = "application/text";
/// The content encoding of text.
pub(crate) const UTF_8: &str = "utf-8";
/// The content encoding of binary data.
pub(crate) const BINARY: &str = "binary";

/// Compares a content type with one of the constants, ignoring parameters and case.
pub(super) fn matches(content_type: &str, expected: &str) -> bool {
    let essence = || content_type.split(';').next().unwrap_or_default().trim();
    content_type == expected || essence().eq_ignore_ascii_case(expected)
}
