//! Nesting limit of field tables, checked before decoding.
//!
//! The codec decodes nested tables by recursion. A frame of 128 KiB can nest some twenty thousand
//! levels, which would overflow the stack and abort the process, so the depth is measured first.
//! The list of methods that a client may send lives here too.

use crate::error::{AmqpError, Code, Result};

/// Maximum depth of nested tables and arrays. Clients use two or three levels.
pub(crate) const MAX_DEPTH: usize = 64;

/// Encoding of a method argument that precedes or is the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgumentPart {
    /// A fixed number of bytes.
    Bytes(usize),
    ShortString,
    Table,
}

use ArgumentPart::{Bytes, ShortString, Table};

/// Methods that a client may send, each with its arguments up to and including a table.
pub(crate) const CLIENT_METHODS: &[((u16, u16), &[ArgumentPart])] = &[
    ((10, 11), &[Table]), // connection.start-ok
    ((10, 21), &[]),      // connection.secure-ok
    ((10, 31), &[]),      // connection.tune-ok
    ((10, 40), &[]),      // connection.open
    ((10, 50), &[]),      // connection.close
    ((10, 51), &[]),      // connection.close-ok
    ((10, 70), &[]),      // connection.update-secret
    ((20, 10), &[]),      // channel.open
    ((20, 20), &[]),      // channel.flow
    ((20, 21), &[]),      // channel.flow-ok
    ((20, 40), &[]),      // channel.close
    ((20, 41), &[]),      // channel.close-ok
    ((30, 10), &[]),      // access.request
    (
        (40, 10),
        &[Bytes(2), ShortString, ShortString, Bytes(1), Table],
    ), // exchange.declare
    ((40, 20), &[]),      // exchange.delete
    (
        (40, 30),
        &[
            Bytes(2),
            ShortString,
            ShortString,
            ShortString,
            Bytes(1),
            Table,
        ],
    ), // exchange.bind
    (
        (40, 40),
        &[
            Bytes(2),
            ShortString,
            ShortString,
            ShortString,
            Bytes(1),
            Table,
        ],
    ), // exchange.unbind
    ((50, 10), &[Bytes(2), ShortString, Bytes(1), Table]), // queue.declare
    (
        (50, 20),
        &[
            Bytes(2),
            ShortString,
            ShortString,
            ShortString,
            Bytes(1),
            Table,
        ],
    ), // queue.bind
    ((50, 30), &[]),      // queue.purge
    ((50, 40), &[]),      // queue.delete
    (
        (50, 50),
        &[Bytes(2), ShortString, ShortString, ShortString, Table],
    ), // queue.unbind
    ((60, 10), &[]),      // basic.qos
    (
        (60, 20),
        &[Bytes(2), ShortString, ShortString, Bytes(1), Table],
    ), // basic.consume
    ((60, 30), &[]),      // basic.cancel
    ((60, 31), &[]),      // basic.cancel-ok
    ((60, 40), &[]),      // basic.publish
    ((60, 70), &[]),      // basic.get
    ((60, 80), &[]),      // basic.ack
    ((60, 90), &[]),      // basic.reject
    ((60, 100), &[]),     // basic.recover-async
    ((60, 110), &[]),     // basic.recover
    ((60, 120), &[]),     // basic.nack
    ((85, 10), &[]),      // confirm.select
    ((90, 10), &[]),      // tx.select
    ((90, 20), &[]),      // tx.commit
    ((90, 30), &[]),      // tx.rollback
];

/// Checks that a client may send a method, and the depth of its table.
pub(crate) fn check_method(id: (u16, u16), arguments: &[u8]) -> Result<()> {
    let Some((_, parts)) = CLIENT_METHODS.iter().find(|(known, _)| *known == id) else {
        return Err(AmqpError::unknown_method());
    };
    let mut rest = arguments;
    for part in *parts {
        let step = match part {
            Bytes(n) => rest.get(*n..),
            ShortString => skip_short_string(rest),
            Table => return check_table(rest),
        };
        match step {
            Some(next) => rest = next,
            // Truncated; the codec reports the error.
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Checks the `headers` property of a content header. It follows the flags and up to two short
/// strings.
pub(crate) fn check_properties(properties: &[u8]) -> Result<()> {
    let [f0, f1, rest @ ..] = properties else {
        return Ok(());
    };
    let flags = u16::from_be_bytes([*f0, *f1]);
    let mut rest = Some(rest);
    for flag in [1 << 15, 1 << 14] {
        if flags & flag != 0 {
            rest = rest.and_then(skip_short_string);
        }
    }
    match rest {
        Some(table) if flags & (1 << 13) != 0 => check_table(table),
        _ => Ok(()),
    }
}

/// Checks the depth of a table that starts with its length.
pub(crate) fn check_table(bytes: &[u8]) -> Result<()> {
    match measure_depth(split_sized(bytes), true, 1) {
        Some(depth) if depth > MAX_DEPTH => Err(AmqpError::new(
            Code::SyntaxError,
            format!("field tables nest deeper than {MAX_DEPTH} levels"),
        )),
        // A malformed table fails in the codec too, which stops at the same place.
        _ => Ok(()),
    }
}

/// Returns the depth of the content of a table or array, or `None` if it is malformed. Stops one
/// level beyond the limit.
fn measure_depth(content: Option<(&[u8], &[u8])>, keys: bool, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH {
        return Some(depth);
    }
    let (mut rest, _) = content?;
    let mut deepest = depth;
    while !rest.is_empty() {
        if keys {
            rest = skip_short_string(rest)?;
        }
        let (kind, value) = rest.split_first()?;
        rest = match kind {
            b'F' | b'A' => {
                let content = split_sized(value);
                // Malformed at a deeper level: the depth found so far still counts.
                deepest = deepest
                    .max(measure_depth(content, *kind == b'F', depth + 1).unwrap_or(depth + 1));
                if deepest > MAX_DEPTH {
                    return Some(deepest);
                }
                content?.1
            }
            b'S' | b'x' => split_sized(value)?.1,
            b't' | b'b' | b'B' => value.get(1..)?,
            b's' | b'U' | b'u' => value.get(2..)?,
            b'I' | b'i' | b'f' => value.get(4..)?,
            b'L' | b'l' | b'd' | b'T' => value.get(8..)?,
            b'D' => value.get(5..)?,
            b'V' => value,
            _ => return Some(deepest),
        };
    }
    Some(deepest)
}

/// Splits the bytes covered by a four-byte length prefix from the rest.
fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// Returns the bytes that follow a short string.
fn skip_short_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first()?;
    rest.get(usize::from(*length)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a table nested to a number of levels.
    pub(crate) fn nested(levels: usize, kind: u8) -> Vec<u8> {
        let mut inner = Vec::new();
        for level in 1..levels {
            let mut outer = Vec::new();
            if kind == b'F' || level == levels - 1 {
                outer.push(0);
            }
            outer.push(kind);
            outer.extend((inner.len() as u32).to_be_bytes());
            outer.extend(inner);
            inner = outer;
        }
        let mut table = (inner.len() as u32).to_be_bytes().to_vec();
        table.extend(inner);
        table
    }

    fn declare(table: &[u8]) -> Vec<u8> {
        [&[0, 50, 0, 10, 0, 0, 1, b'q', 0][..], table].concat()
    }

    #[test]
    fn deep_tables_are_refused_and_others_decoded() {
        for kind in [b'F', b'A'] {
            for levels in [1, 2, MAX_DEPTH] {
                crate::frame::parse_method(&declare(&nested(levels, kind))).unwrap();
            }
            for levels in [MAX_DEPTH + 1, 20_000] {
                let error =
                    crate::frame::parse_method(&declare(&nested(levels, kind))).unwrap_err();
                assert_eq!((error.code, error.method), (Code::SyntaxError, (50, 10)));
            }
        }
    }

    #[test]
    fn deep_headers_are_refused() {
        let deep = [
            &[
                0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0, 1, b'a', 1, b'b',
            ][..],
            &nested(20_000, b'F'),
        ]
        .concat();
        assert_eq!(
            crate::frame::parse_header(&deep).unwrap_err().code,
            Code::SyntaxError
        );
    }

    #[test]
    fn methods_of_the_server_are_refused() {
        let error = crate::frame::parse_method(&[0, 10, 0, 10]).unwrap_err();
        assert_eq!(error.code, Code::CommandInvalid);
    }
}
