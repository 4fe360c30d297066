//! Decoding: integers, strings, tables, properties and the methods of the hot path.
//!
//! No length from the peer is trusted. The methods of every message are decoded here, without
//! copies. The others go through the codec, but only methods that a server may send, after their
//! tables were walked here: the codec recurses as deep as a table is nested.

use std::borrow::Cow;

use amq_protocol::{
    protocol::{AMQPClass, channel, connection, parse_class},
    types::{MAX_SHORT_STRING_LENGTH, ShortString},
};
use bytes::Bytes;

use crate::{
    properties::{Properties, Text},
    table::{Table, Value},
};

/// Nesting limit of tables and lists, sent and received.
pub(crate) const MAX_TABLE_DEPTH: u8 = 64;

/// Description of malformed bytes from a peer.
pub(crate) type Malformed = String;

/// A method sent by a server.
#[derive(Debug)]
pub(crate) enum Method<'a> {
    /// `basic.deliver`.
    Deliver {
        consumer_tag: Cow<'a, str>,
        delivery_tag: u64,
        redelivered: bool,
        exchange: Cow<'a, str>,
        routing_key: Cow<'a, str>,
    },
    /// `basic.return`.
    Return {
        code: u16,
        text: Cow<'a, str>,
        exchange: Cow<'a, str>,
        routing_key: Cow<'a, str>,
    },
    /// `basic.get-ok`.
    GetOk {
        delivery_tag: u64,
        redelivered: bool,
        exchange: Cow<'a, str>,
        routing_key: Cow<'a, str>,
    },
    /// `basic.ack` of a publish.
    Ack { tag: u64, multiple: bool },
    /// `basic.nack` of a publish.
    Nack { tag: u64, multiple: bool },
    /// Any other method that a server may send.
    Other(AMQPClass),
}

impl<'a> Method<'a> {
    /// Parses the payload of a method frame.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(payload);
        let (class, method) = (cursor.u16()?, cursor.u16()?);
        // Field order: AMQP 0-9-1 reference, class basic; nack is an extension of RabbitMQ.
        let parsed = match (class, method) {
            (60, 60) => Method::Deliver {
                consumer_tag: cursor.short_string()?,
                delivery_tag: cursor.u64()?,
                redelivered: cursor.u8()? & 1 != 0,
                exchange: cursor.short_string()?,
                routing_key: cursor.short_string()?,
            },
            (60, 50) => Method::Return {
                code: cursor.u16()?,
                text: cursor.short_string()?,
                exchange: cursor.short_string()?,
                routing_key: cursor.short_string()?,
            },
            (60, 71) => {
                let parsed = Method::GetOk {
                    delivery_tag: cursor.u64()?,
                    redelivered: cursor.u8()? & 1 != 0,
                    exchange: cursor.short_string()?,
                    routing_key: cursor.short_string()?,
                };
                let _message_count = cursor.u32()?;
                parsed
            }
            (60, 80) => Method::Ack {
                tag: cursor.u64()?,
                multiple: cursor.u8()? & 1 != 0,
            },
            (60, 120) => Method::Nack {
                tag: cursor.u64()?,
                multiple: cursor.u8()? & 1 != 0,
            },
            (10, 50) => {
                let close = cursor.close()?;
                Method::Other(AMQPClass::Connection(connection::AMQPMethod::Close(
                    connection::Close {
                        reply_code: close.code,
                        reply_text: close.text,
                        class_id: close.class,
                        method_id: close.method,
                    },
                )))
            }
            (20, 40) => {
                let close = cursor.close()?;
                Method::Other(AMQPClass::Channel(channel::AMQPMethod::Close(
                    channel::Close {
                        reply_code: close.code,
                        reply_text: close.text,
                        class_id: close.class,
                        method_id: close.method,
                    },
                )))
            }
            _ if is_from_server(class, method) => {
                if (class, method) == (10, 10) {
                    let _version = cursor.u16()?;
                    cursor.table()?;
                }
                return match parse_class(payload) {
                    Ok(([], class)) => Ok(Method::Other(class)),
                    Ok(_) => Err(format!("method {class}.{method} with bytes left over")),
                    Err(_) => Err(format!("malformed method {class}.{method}")),
                };
            }
            _ => {
                return Err(format!(
                    "method {class}.{method}, which a server must not send"
                ));
            }
        };
        if cursor.0.is_empty() {
            Ok(parsed)
        } else {
            Err(format!("method {class}.{method} with bytes left over"))
        }
    }
}

/// Returns whether a server may send the method and the codec decodes it. Of these methods only
/// `connection.start` contains a table.
fn is_from_server(class: u16, method: u16) -> bool {
    match class {
        10 => matches!(method, 10 | 20 | 30 | 41 | 51 | 60 | 61),
        20 => matches!(method, 11 | 20 | 21 | 41),
        40 => matches!(method, 11 | 21 | 31 | 51),
        50 => matches!(method, 11 | 21 | 31 | 41 | 51),
        60 => matches!(method, 11 | 21 | 30 | 31 | 72 | 111),
        85 => method == 11,
        _ => false,
    }
}

/// A content header with its properties still encoded.
#[derive(Debug)]
pub(crate) struct ContentHeader<'a> {
    /// Announced size of the body in bytes.
    pub(crate) body_size: u64,
    /// Encoded properties.
    properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Parses the payload of a header frame up to its properties.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(payload);
        let class = cursor.u16()?;
        if class != 60 {
            return Err(format!("content of class {class}"));
        }
        let _weight = cursor.u16()?;
        let body_size = cursor.u64()?;
        Ok(Self {
            body_size,
            properties: cursor.0,
        })
    }

    /// Decodes the properties.
    pub(crate) fn properties(&self) -> Result<Properties, Malformed> {
        let mut cursor = Cursor(self.properties);
        let properties = cursor.properties()?;
        if cursor.0.is_empty() {
            Ok(properties)
        } else {
            Err("message properties with bytes left over".to_owned())
        }
    }
}

struct Close {
    code: u16,
    text: ShortString,
    class: u16,
    method: u16,
}

/// A cursor that decodes from the front of a slice.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Decodes a short string. AMQP does not guarantee UTF-8, and a message with an unusual routing
    /// key must not end the connection, so invalid bytes become U+FFFD.
    pub(crate) fn short_string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let length = self.u8()?.into();
        let bytes = self.take(length)?;
        // First, because it is faster for valid text.
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Ok(String::from_utf8_lossy(bytes)),
        }
    }

    /// Decodes the fields of a close. A broker may cut the text at 255 bytes within a character,
    /// which the codec does not accept.
    fn close(&mut self) -> Result<Close, Malformed> {
        let code = self.u16()?;
        let text = self.short_string()?;
        let end = text.floor_char_boundary(MAX_SHORT_STRING_LENGTH);
        Ok(Close {
            code,
            text: ShortString::try_new(text.get(..end).unwrap_or_default()).unwrap_or_default(),
            class: self.u16()?,
            method: self.u16()?,
        })
    }

    fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| too_short())?)
    }

    /// Decodes a field table with its length.
    pub(crate) fn table(&mut self) -> Result<Table, Malformed> {
        self.nested_table(MAX_TABLE_DEPTH)
    }

    fn nested_table(&mut self, depth: u8) -> Result<Table, Malformed> {
        let depth = deeper(depth)?;
        let mut entries = Cursor(self.long_bytes()?);
        let mut table = Vec::new();
        while !entries.0.is_empty() {
            let name = entries.short_string()?.into_owned();
            table.push((name, entries.value(depth)?));
        }
        Ok(Table::from_entries(table))
    }

    fn value(&mut self, depth: u8) -> Result<Value, Malformed> {
        // Type letters of RabbitMQ: https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3
        Ok(match self.u8()? {
            b't' => Value::Bool(self.u8()? != 0),
            b'b' => Value::Int(i8::from_be_bytes(self.array()?).into()),
            b'B' => Value::Int(self.u8()?.into()),
            b's' | b'U' => Value::Int(i16::from_be_bytes(self.array()?).into()),
            b'u' => Value::Int(self.u16()?.into()),
            b'I' => Value::Int(i32::from_be_bytes(self.array()?).into()),
            b'i' => Value::Int(self.u32()?.into()),
            b'l' | b'L' => Value::Int(i64::from_be_bytes(self.array()?)),
            b'f' => Value::Double(f32::from_be_bytes(self.array()?).into()),
            b'd' => Value::Double(f64::from_be_bytes(self.array()?)),
            b'D' => Value::Decimal {
                scale: self.u8()?,
                value: i32::from_be_bytes(self.array()?),
            },
            b'S' => {
                let bytes = self.long_bytes()?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => Value::String(text.to_owned()),
                    Err(_) => Value::Bytes(Bytes::copy_from_slice(bytes)),
                }
            }
            b'x' => Value::Bytes(Bytes::copy_from_slice(self.long_bytes()?)),
            b'T' => Value::Timestamp(self.u64()?),
            b'A' => {
                let depth = deeper(depth)?;
                let mut items = Cursor(self.long_bytes()?);
                let mut list = Vec::new();
                while !items.0.is_empty() {
                    list.push(items.value(depth)?);
                }
                Value::List(list)
            }
            b'F' => Value::Table(self.nested_table(depth)?),
            b'V' => Value::Null,
            other => {
                return Err(format!(
                    "a table with a value of unknown type 0x{other:02x}"
                ));
            }
        })
    }

    /// Decodes the property flags and list of a header frame.
    fn properties(&mut self) -> Result<Properties, Malformed> {
        let flags = self.u16()?;
        // The lowest bit announces more flags; the 14 properties of basic need none.
        if flags & 0b11 != 0 {
            return Err(format!(
                "message properties with unknown flags {flags:#06x}"
            ));
        }
        let has = |bit: u16| flags & (1 << bit) != 0;
        let mut properties = Properties::default();
        if has(15) {
            properties.content_type = Some(self.common_text()?);
        }
        if has(14) {
            properties.content_encoding = Some(self.common_text()?);
        }
        if has(13) {
            properties.headers = self.table()?;
        }
        if has(12) {
            properties.delivery_mode = Some(self.u8()?);
        }
        if has(11) {
            properties.priority = Some(self.u8()?);
        }
        if has(10) {
            properties.correlation_id = Some(self.text()?);
        }
        if has(9) {
            properties.reply_to = Some(self.text()?);
        }
        if has(8) {
            properties.expiration = Some(self.text()?);
        }
        if has(7) {
            properties.message_id = Some(self.text()?);
        }
        if has(6) {
            properties.timestamp = Some(self.u64()?);
        }
        if has(5) {
            properties.type_ = Some(self.text()?);
        }
        if has(4) {
            properties.user_id = Some(self.text()?);
        }
        if has(3) {
            properties.app_id = Some(self.text()?);
        }
        if has(2) {
            properties.cluster_id = Some(self.text()?);
        }
        Ok(properties)
    }

    fn text(&mut self) -> Result<Text, Malformed> {
        Ok(Text::Owned(self.short_string()?.into_owned()))
    }

    /// Decodes a short string, without a copy for common content types and encodings.
    fn common_text(&mut self) -> Result<Text, Malformed> {
        const COMMON_TEXTS: [&str; 6] = [
            "application/json",
            "utf-8",
            "binary",
            "application/x-python-serialize",
            "application/x-yaml",
            "text/plain",
        ];
        let text = self.short_string()?;
        Ok(match COMMON_TEXTS.iter().find(|common| **common == text) {
            Some(common) => Text::Borrowed(common),
            None => Text::Owned(text.into_owned()),
        })
    }
}

fn deeper(depth: u8) -> Result<u8, Malformed> {
    depth
        .checked_sub(1)
        .ok_or_else(|| format!("a table nested deeper than {MAX_TABLE_DEPTH} levels"))
}

fn too_short() -> Malformed {
    "a frame that ends in the middle of a field".to_owned()
}
