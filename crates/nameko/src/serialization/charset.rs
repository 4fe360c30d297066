//! Character sets of text bodies, by the names that Python's codecs have in `content_encoding`.

use std::borrow::Cow;

use super::{
    Error,
    content_type::{BINARY, UTF_8},
};

/// Code points of the bytes 0x80 to 0x9f in Windows-1252; 0 where it has none.
///
/// Source: Python's codec `cp1252`.
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039,
    0x0152, 0, 0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc,
    0x2122, 0x0161, 0x203a, 0x0153, 0, 0x017e, 0x0178,
];

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns whether a content encoding says that the body is not text.
pub(super) fn is_binary(content_encoding: &str) -> bool {
    content_encoding.eq_ignore_ascii_case(BINARY)
        || content_encoding.eq_ignore_ascii_case("ascii-8bit")
}

/// Converts the text of a body to UTF-8. Text without a content encoding, or with a binary one,
/// counts as UTF-8; whether it is valid is left to its format.
///
/// # Errors
/// If the encoding is not supported, or the body is not valid in it.
pub(super) fn to_utf_8<'a>(
    content_encoding: Option<&str>,
    body: &'a [u8],
) -> Result<Cow<'a, [u8]>, Error> {
    let encoding = content_encoding.unwrap_or(UTF_8);
    if encoding.is_empty() || encoding == UTF_8 || is_binary(encoding) {
        return Ok(Cow::Borrowed(body));
    }
    let name = encoding.to_ascii_lowercase().replace('_', "-");
    let text = match name.as_str() {
        "utf-8" | "utf8" | "ascii" | "us-ascii" => return Ok(Cow::Borrowed(body)),
        "utf-8-sig" => {
            return Ok(Cow::Borrowed(
                body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body),
            ));
        }
        "latin-1" | "latin1" | "iso-8859-1" | "iso8859-1" => single_bytes(body, |byte| byte.into()),
        "iso-8859-15" | "iso8859-15" | "latin-9" => single_bytes(body, latin_9),
        "cp1252" | "windows-1252" => single_bytes(body, windows_1252),
        "utf-16" | "utf16" => utf_16(body, None),
        "utf-16-le" | "utf-16le" => utf_16(body, Some(u16::from_le_bytes)),
        "utf-16-be" | "utf-16be" => utf_16(body, Some(u16::from_be_bytes)),
        _ => {
            return Err(Error::read(format_args!(
                "its content encoding `{encoding}` is not supported: send utf-8, utf-16, latin-1, \
                 iso-8859-15, cp1252 or binary"
            )));
        }
    };
    text.map(|text| Cow::Owned(text.into_bytes()))
        .ok_or_else(|| Error::read(format_args!("its body is not {encoding} text")))
}

/// Decodes a character set of one byte per character. `u16` 0 stands for a byte without one.
fn single_bytes(body: &[u8], decode: impl Fn(u8) -> u16) -> Option<String> {
    body.iter()
        .map(|&byte| match decode(byte) {
            0 if byte != 0 => None,
            code => char::from_u32(code.into()),
        })
        .collect()
}

/// Source: Python's codec `iso8859-15`.
fn latin_9(byte: u8) -> u16 {
    match byte {
        0xa4 => 0x20ac,
        0xa6 => 0x0160,
        0xa8 => 0x0161,
        0xb4 => 0x017d,
        0xb8 => 0x017e,
        0xbc => 0x0152,
        0xbd => 0x0153,
        0xbe => 0x0178,
        other => other.into(),
    }
}

fn windows_1252(byte: u8) -> u16 {
    let in_table = byte.checked_sub(0x80);
    in_table
        .and_then(|index| WINDOWS_1252.get(usize::from(index)).copied())
        .unwrap_or(byte.into())
}

/// Decodes UTF-16, without a byte order by its mark, which defaults to little endian.
fn utf_16(body: &[u8], order: Option<fn([u8; 2]) -> u16>) -> Option<String> {
    let (pairs, rest) = body.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let decode = |order: fn([u8; 2]) -> u16, pairs: &[[u8; 2]]| {
        char::decode_utf16(pairs.iter().map(|pair| order(*pair)))
            .collect::<Result<String, _>>()
            .ok()
    };
    match (order, pairs) {
        (Some(order), pairs) => decode(order, pairs),
        (None, [first, rest @ ..]) if is_mark(u16::from_be_bytes(*first)) => {
            decode(u16::from_be_bytes, rest)
        }
        (None, [first, rest @ ..]) if is_mark(u16::from_le_bytes(*first)) => {
            decode(u16::from_le_bytes, rest)
        }
        (None, pairs) => decode(u16::from_le_bytes, pairs),
    }
}

fn is_mark(unit: u16) -> bool {
    u32::from(unit) == u32::from(BYTE_ORDER_MARK)
}
