//! MessagePack as written and read by kombu's serializer `msgpack`: text and bytes are distinct
//! types, structs are maps.
//!
//! Types that serde writes as text in JSON (a UUID, an address) are text here too, since peers
//! expect it.

use std::fmt::Display;

use bytes::Bytes;
use rmp::Marker;
use rmp_serde::decode::Error as ReadError;
use serde::{Serialize, Serializer, de::DeserializeOwned};

use super::{Error, json, transcode::Transcode};

/// The encoding of null.
pub(super) const NIL: u8 = 0xc0;

/// Maximum nesting of lists and maps; the same as serde_json's.
const MAX_DEPTH: usize = 128;

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(128);
    let mut serializer = rmp_serde::Serializer::new(&mut out)
        .with_struct_map()
        .with_human_readable();
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::write_as("MessagePack", error))?;
    Ok(out)
}

/// Validates the lengths and the nesting of a body, which must hold exactly one value.
pub(super) fn validate(body: &[u8]) -> Result<(), Error> {
    if body.is_empty() {
        return Err(Error::read("its body is empty"));
    }
    match length(body)? {
        whole if whole == body.len() => Ok(()),
        whole => Err(unreadable(format_args!(
            "the value ends at byte {whole}, and {} more follow",
            body.len() - whole
        ))),
    }
}

pub(super) fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, Error> {
    let mut deserializer = deserializer(value);
    let read = match may_hold_non_finite(value) {
        true => json::read_checked(&mut deserializer),
        false => T::deserialize(&mut deserializer),
    };
    read.map_err(|error| match error {
        ReadError::Syntax(text) | ReadError::Uncategorized(text) => Error::mismatch(text),
        ReadError::TypeMismatch(marker) => {
            Error::mismatch(format_args!("invalid type: {}", kind(marker)))
        }
        other @ (ReadError::LengthMismatch(_) | ReadError::OutOfRange) => Error::mismatch(other),
        other => unreadable(other),
    })
}

pub(super) fn transcode<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    Transcode::new(&mut deserializer(value)).serialize(serializer)
}

/// Returns `true` if a value may hold NaN or an infinity: if the bytes of one occur in it.
fn may_hold_non_finite(value: &[u8]) -> bool {
    const F32: u8 = 0xca;
    const F64: u8 = 0xcb;
    if !value.contains(&F32) && !value.contains(&F64) {
        return false;
    }
    // All bits of the exponent are set.
    value.windows(3).any(|bytes| match *bytes {
        [F32, first, second] => first & 0x7f == 0x7f && second & 0x80 == 0x80,
        [F64, first, second] => first & 0x7f == 0x7f && second & 0xf0 == 0xf0,
        _ => false,
    })
}

/// Returns the marker of a value.
pub(super) fn marker(value: &[u8]) -> Marker {
    value
        .first()
        .map_or(Marker::Reserved, |byte| (*byte).into())
}

/// Iterates over the items of a list, or the alternating keys and values of a map; empty for any
/// other value.
pub(super) fn items(value: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let header = Header::read(value).ok();
    let header = header.filter(|_| is_compound(marker(value)));
    let (start, items) = header.map_or((value.len(), 0), |header| (header.size, header.items));
    let mut rest = value.slice(start..);
    (0..items).map_while(move |_| {
        let size = length(&rest).ok()?;
        Some(rest.split_to(size))
    })
}

/// Returns the kind of a value, as a phrase for error messages.
pub(super) fn kind(marker: Marker) -> &'static str {
    match marker {
        Marker::Null => "null",
        Marker::True | Marker::False => "a boolean",
        Marker::F32 | Marker::F64 => "a float",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "text",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "bytes",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "a list",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        Marker::FixPos(_)
        | Marker::FixNeg(_)
        | Marker::U8
        | Marker::U16
        | Marker::U32
        | Marker::U64
        | Marker::I8
        | Marker::I16
        | Marker::I32
        | Marker::I64 => "an integer",
        _ => "an extension type",
    }
}

fn is_compound(marker: Marker) -> bool {
    matches!(kind(marker), "a list" | "a map")
}

type Reader<'a> = rmp_serde::Deserializer<
    rmp_serde::decode::ReadRefReader<'a, [u8]>,
    rmp_serde::config::HumanReadableConfig<rmp_serde::config::DefaultConfig>,
>;

fn deserializer(value: &[u8]) -> Reader<'_> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(value).with_human_readable();
    // `length` has enforced the limit. rmp_serde also counts extension types and stops one level
    // earlier.
    deserializer.set_max_depth(MAX_DEPTH + 2);
    deserializer
}

/// Returns the size in bytes of the value at the start of `data`.
fn length(data: &[u8]) -> Result<usize, Error> {
    let mut at: usize = 0;
    // The number of remaining items of each open list and map.
    let mut open: Vec<u64> = Vec::new();
    loop {
        let rest = data.get(at..).unwrap_or_default();
        let header = Header::read(rest)?;
        at = at
            .checked_add(header.size)
            .filter(|end| *end <= data.len())
            .ok_or_else(cut)?;
        if header.items > 0 {
            if open.len() == MAX_DEPTH {
                return Err(unreadable(format_args!(
                    "lists and maps are nested more than {MAX_DEPTH} levels deep"
                )));
            }
            open.push(header.items);
            continue;
        }
        loop {
            match open.last_mut() {
                None => return Ok(at),
                Some(1) => drop(open.pop()),
                Some(left) => {
                    *left -= 1;
                    break;
                }
            }
        }
    }
}

/// The header of a value.
struct Header {
    /// Size in bytes, without the items of a list or map.
    size: usize,
    /// Number of values that follow: the items of a list, the keys and values of a map.
    items: u64,
}

impl Header {
    /// Source: the MessagePack specification, "Formats".
    fn read(data: &[u8]) -> Result<Self, Error> {
        let Some(first) = data.first() else {
            return Err(cut());
        };
        let number = |bytes: usize| -> Result<u64, Error> {
            let bytes = data.get(1..1 + bytes).ok_or_else(cut)?;
            Ok(bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
        };
        // Text, bytes or an extension, with a length field of `bytes` bytes; an extension has one
        // more byte for its type.
        let sized = |bytes: usize, extra: usize| -> Result<Self, Error> {
            let length = usize::try_from(number(bytes)?).map_err(|_| cut())?;
            let size = length.checked_add(1 + bytes + extra).ok_or_else(cut)?;
            Ok(Self { size, items: 0 })
        };
        let list = |bytes: usize, each: u64| -> Result<Self, Error> {
            let items = number(bytes)? * each;
            let size = 1 + bytes;
            Ok(Self { size, items })
        };
        let plain = |size: usize| Ok(Self { size, items: 0 });
        match Marker::from(*first) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                plain(1)
            }
            Marker::U8 | Marker::I8 => plain(2),
            Marker::U16 | Marker::I16 => plain(3),
            Marker::U32 | Marker::I32 | Marker::F32 => plain(5),
            Marker::U64 | Marker::I64 | Marker::F64 => plain(9),
            Marker::FixStr(length) => plain(1 + usize::from(length)),
            Marker::Str8 | Marker::Bin8 => sized(1, 0),
            Marker::Str16 | Marker::Bin16 => sized(2, 0),
            Marker::Str32 | Marker::Bin32 => sized(4, 0),
            Marker::FixExt1 => plain(3),
            Marker::FixExt2 => plain(4),
            Marker::FixExt4 => plain(6),
            Marker::FixExt8 => plain(10),
            Marker::FixExt16 => plain(18),
            Marker::Ext8 => sized(1, 1),
            Marker::Ext16 => sized(2, 1),
            Marker::Ext32 => sized(4, 1),
            Marker::FixArray(items) => Ok(Self {
                size: 1,
                items: items.into(),
            }),
            Marker::Array16 => list(2, 1),
            Marker::Array32 => list(4, 1),
            Marker::FixMap(pairs) => Ok(Self {
                size: 1,
                items: u64::from(pairs) * 2,
            }),
            Marker::Map16 => list(2, 2),
            Marker::Map32 => list(4, 2),
            Marker::Reserved => Err(unreadable("byte 0xc1 does not start a value")),
        }
    }
}

fn cut() -> Error {
    unreadable("it ends within a value")
}

fn unreadable(detail: impl Display) -> Error {
    Error::read_as("MessagePack", detail)
}
