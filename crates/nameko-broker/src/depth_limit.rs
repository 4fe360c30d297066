//! How deep a field table nests, found before the codec sees it.
//!
//! The codec decodes tables within tables by recursion. A frame of 128 KiB can nest some twenty thousand deep, which would
//! overflow the stack and end the process, so the depth is measured first. This is also where it is decided which methods
//! a client may send at all.

use crate::error::{AmqpError, Code, Result};

/// How deep tables and arrays may nest. Clients use two or three levels.
pub(crate) const MAX_DEPTH: usize = 64;

/// What arguments of a method look like up to its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgumentPart {
    /// So many bytes.
    Bytes(usize),
    ShortString,
    Table,
}

use ArgumentPart::{Bytes, ShortString, Table};

/// The methods a client may send, with the arguments up to the table for those that have one.
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

/// Checks that a client may send this method, and the depth of its table.
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
            // Too short: the codec will say so.
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Checks the `headers` in the properties of a content header, which follow the flags and two short strings.
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

/// Checks a table that starts with its length.
pub(crate) fn check_table(bytes: &[u8]) -> Result<()> {
    match measure_depth(split_sized(bytes), true, 1) {
        Some(depth) if depth > MAX_DEPTH => Err(AmqpError::new(
            Code::SyntaxError,
            format!("field tables nest deeper than {MAX_DEPTH} levels"),
        )),
        // What cannot be walked cannot be decoded either, and the codec stops there just as well.
        _ => Ok(()),
    }
}

/// The depth of a table's or array's content, `None` when it is malformed. Stops one level past the limit.
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
                // Malformed further in: what was seen so far still counts.
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

/// Splits what a four-byte length counts from what follows it.
fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// What follows a short string.
fn skip_short_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first()?;
    rest.get(usize::from(*length)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that holds a table, so many levels deep.
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
    fn deep_tables_are_refused_and_usual_ones_decoded() {
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
