//! Encoding, straight into the output buffer.
//!
//! Frames of every message are encoded here; rare methods go through the codec.

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::AMQPClass,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    decode::MAX_TABLE_DEPTH,
    error::Error,
    frame::{
        FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD_BYTES,
    },
    message::Publish,
    properties::{Properties, Text},
    table::{Table, Value},
};

/// Encodes a method of the codec.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, method: AMQPClass) -> Result<(), Error> {
    let frame = AMQPFrame::Method(channel, method);
    match gen_frame(&frame)(WriteContext::from(Vec::new())) {
        Ok(written) => {
            out.extend_from_slice(&written.into_inner().0);
            Ok(())
        }
        Err(error) => Err(unsendable(error.to_string())),
    }
}

/// Encodes a heartbeat frame.
pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END]);
}

/// Encodes `basic.ack` of one delivery.
pub(crate) fn ack(out: &mut Vec<u8>, channel: u16, tag: u64) {
    settle(out, channel, 80, tag, false);
}

/// Encodes `basic.reject`.
pub(crate) fn reject(out: &mut Vec<u8>, channel: u16, tag: u64, requeue: bool) {
    settle(out, channel, 90, tag, requeue);
}

fn settle(out: &mut Vec<u8>, channel: u16, method: u16, tag: u64, bit: bool) {
    framed(out, FRAME_METHOD, channel, |out| {
        out.extend_from_slice(&60u16.to_be_bytes());
        out.extend_from_slice(&method.to_be_bytes());
        out.extend_from_slice(&tag.to_be_bytes());
        out.push(bit.into());
    });
}

/// Encodes `basic.publish` with header and body frames, none larger than `frame_max`. Leaves `out`
/// unchanged on an error.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    channel: u16,
    message: &Publish,
    frame_max: usize,
) -> Result<(), Error> {
    let start = out.len();
    let encoded = encode_message(out, channel, message, frame_max);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn encode_message(
    out: &mut Vec<u8>,
    channel: u16,
    message: &Publish,
    frame_max: usize,
) -> Result<(), Error> {
    framed(out, FRAME_METHOD, channel, |out| {
        out.extend_from_slice(&[0, 60, 0, 40, 0, 0]);
        short(out, "the exchange", &message.exchange)?;
        short(out, "the routing key", &message.routing_key)?;
        out.push(message.mandatory.into());
        Ok(())
    })?;
    let header = out.len();
    framed(out, FRAME_HEADER, channel, |out| {
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(message.body.len() as u64).to_be_bytes());
        properties(out, &message.properties)
    })?;
    let length = out.len() - header;
    if length > frame_max {
        return Err(unsendable(format!(
            "properties and headers of {length} bytes exceed the broker's limit of {frame_max}"
        )));
    }
    for chunk in message.body.chunks(frame_max - FRAME_OVERHEAD_BYTES) {
        framed(out, FRAME_BODY, channel, |out| out.extend_from_slice(chunk));
    }
    Ok(())
}

/// Encodes the flags and list of all properties that are set. Headers are always encoded.
fn properties(out: &mut Vec<u8>, properties: &Properties) -> Result<(), Error> {
    let flags_at = out.len();
    let mut flags: u16 = 1 << 13;
    out.extend_from_slice(&[0, 0]);
    let mut text = |out: &mut Vec<u8>, bit: u16, name: &str, text: &Option<Text>| match text {
        Some(text) => {
            flags |= 1 << bit;
            short(out, name, text)
        }
        None => Ok(()),
    };
    text(out, 15, "content_type", &properties.content_type)?;
    text(out, 14, "content_encoding", &properties.content_encoding)?;
    table(out, &properties.headers, MAX_TABLE_DEPTH)?;
    if let Some(mode) = properties.delivery_mode {
        out.push(mode);
    }
    if let Some(priority) = properties.priority {
        out.push(priority);
    }
    text(out, 10, "correlation_id", &properties.correlation_id)?;
    text(out, 9, "reply_to", &properties.reply_to)?;
    text(out, 8, "expiration", &properties.expiration)?;
    text(out, 7, "message_id", &properties.message_id)?;
    if let Some(timestamp) = properties.timestamp {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    text(out, 5, "type", &properties.type_)?;
    text(out, 4, "user_id", &properties.user_id)?;
    text(out, 3, "app_id", &properties.app_id)?;
    text(out, 2, "cluster_id", &properties.cluster_id)?;
    for (bit, set) in [
        (12, properties.delivery_mode.is_some()),
        (11, properties.priority.is_some()),
        (6, properties.timestamp.is_some()),
    ] {
        flags |= u16::from(set) << bit;
    }
    out[flags_at..flags_at + 2].copy_from_slice(&flags.to_be_bytes());
    Ok(())
}

/// Encodes the entries of a table without its length.
pub(crate) fn bare_table(out: &mut Vec<u8>, entries: &Table) -> Result<(), Error> {
    bare_entries(out, entries, MAX_TABLE_DEPTH)
}

fn bare_entries(out: &mut Vec<u8>, entries: &Table, depth: u8) -> Result<(), Error> {
    for (name, item) in entries.iter() {
        short(out, "the name of a header", name)?;
        value(out, item, depth)?;
    }
    Ok(())
}

fn table(out: &mut Vec<u8>, entries: &Table, depth: u8) -> Result<(), Error> {
    let depth = deeper(depth)?;
    with_length(out, |out| bare_entries(out, entries, depth))
}

fn value(out: &mut Vec<u8>, item: &Value, depth: u8) -> Result<(), Error> {
    match item {
        Value::Null => out.push(b'V'),
        Value::Bool(value) => out.extend_from_slice(&[b't', u8::from(*value)]),
        // The same types as py-amqp. Brokers compare arguments of declarations by value.
        Value::Int(number) => match i32::try_from(*number) {
            Ok(small) => {
                out.push(b'I');
                out.extend_from_slice(&small.to_be_bytes());
            }
            Err(_) => {
                out.push(b'l');
                out.extend_from_slice(&number.to_be_bytes());
            }
        },
        Value::Double(number) => {
            out.push(b'd');
            out.extend_from_slice(&finite(*number)?.to_be_bytes());
        }
        Value::String(text) => {
            out.push(b'S');
            long(out, text.as_bytes())?;
        }
        Value::Bytes(bytes) => {
            out.push(b'x');
            long(out, bytes)?;
        }
        Value::Timestamp(seconds) => {
            out.push(b'T');
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        Value::Decimal { scale, value } => {
            out.extend_from_slice(&[b'D', *scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::List(items) => {
            out.push(b'A');
            let depth = deeper(depth)?;
            with_length(out, |out| {
                items.iter().try_for_each(|item| value(out, item, depth))
            })?;
        }
        Value::Table(entries) => {
            out.push(b'F');
            table(out, entries, depth)?;
        }
    }
    Ok(())
}

/// Encodes a frame around the payload.
fn framed<T>(
    out: &mut Vec<u8>,
    kind: u8,
    channel: u16,
    payload: impl FnOnce(&mut Vec<u8>) -> T,
) -> T {
    let [high, low] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, high, low, 0, 0, 0, 0]);
    let start = out.len();
    let result = payload(out);
    let length = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    out.push(FRAME_END);
    result
}

fn with_length(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    content(out)?;
    let length = u32::try_from(out.len() - start)
        .map_err(|_| unsendable("a header of more than 4 GiB".to_owned()))?;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn short(out: &mut Vec<u8>, what: &str, text: &str) -> Result<(), Error> {
    let length = u8::try_from(text.len()).map_err(|_| too_long(what, text))?;
    out.push(length);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| unsendable("a header of more than 4 GiB".to_owned()))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn deeper(depth: u8) -> Result<u8, Error> {
    depth.checked_sub(1).ok_or_else(|| {
        unsendable(format!(
            "headers nested deeper than {MAX_TABLE_DEPTH} levels"
        ))
    })
}

/// Checks for NaN and infinity, on which RabbitMQ closes the connection.
fn finite(number: f64) -> Result<f64, Error> {
    match number.is_finite() {
        true => Ok(number),
        false => Err(unsendable(format!(
            "the number {number} in a header or an argument"
        ))),
    }
}

/// Converts to a short string of the codec, which panics on one that is too long.
pub(crate) fn short_string(what: &str, text: &str) -> Result<ShortString, Error> {
    ShortString::try_new(text).map_err(|_| too_long(what, text))
}

/// Converts to a table of the codec.
pub(crate) fn field_table(table: &Table) -> Result<FieldTable, Error> {
    nested_field_table(table, MAX_TABLE_DEPTH)
}

fn nested_field_table(table: &Table, depth: u8) -> Result<FieldTable, Error> {
    let depth = deeper(depth)?;
    let mut fields = FieldTable::default();
    for (name, value) in table.iter() {
        fields.insert(
            short_string("the name of an argument", name)?,
            field(value, depth)?,
        );
    }
    Ok(fields)
}

fn field(value: &Value, depth: u8) -> Result<AMQPValue, Error> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Int(number) => match i32::try_from(*number) {
            Ok(small) => AMQPValue::LongInt(small),
            Err(_) => AMQPValue::LongLongInt(*number),
        },
        Value::Double(number) => AMQPValue::Double(finite(*number)?),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.to_vec().into()),
        Value::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        Value::Decimal { scale, value } => {
            AMQPValue::DecimalValue(amq_protocol::types::DecimalValue {
                scale: *scale,
                value: value.cast_unsigned(),
            })
        }
        Value::List(items) => {
            let depth = deeper(depth)?;
            let items: Vec<AMQPValue> = items
                .iter()
                .map(|item| field(item, depth))
                .collect::<Result<_, _>>()?;
            AMQPValue::FieldArray(items.into())
        }
        Value::Table(table) => AMQPValue::FieldTable(nested_field_table(table, depth)?),
    })
}

fn too_long(what: &str, text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    unsendable(format!(
        "{what} `{shown}...` has {} bytes, AMQP allows 255",
        text.len()
    ))
}

fn unsendable(reason: String) -> Error {
    Error::Unsendable { reason }
}
