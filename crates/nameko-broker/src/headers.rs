//! Changing the headers of a message. It is decoded and encoded again, so only what needs it goes this way.

use std::collections::BTreeMap;

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame},
    protocol::basic::AMQPProperties,
    types::{AMQPValue, ShortString},
};
use bytes::Bytes;

use crate::{
    error::{AmqpError, Result},
    field_values::type_name,
    frame::{FRAME_HEAD_BYTES, FRAME_OVERHEAD_BYTES, parse_header},
    name::Name,
};

/// A table of headers.
pub(crate) type Headers = BTreeMap<ShortString, AMQPValue>;

/// Largest content header this broker makes, in bytes. A frame of the usual size has to hold it, for it can't be cut; and a
/// message that goes from queue to queue does not grow for ever.
const MAX_HEADER_BYTES: usize = (128 << 10) - FRAME_OVERHEAD_BYTES;

/// A content header's payload with other properties and headers; `None` when it would be too large.
///
/// `change` gets the properties, whose own headers it need not look at, and the headers to change.
pub(crate) fn rewrite(
    header: &[u8],
    change: impl FnOnce(AMQPProperties, &mut Headers) -> AMQPProperties,
) -> Option<Bytes> {
    let header = parse_header(header).ok()?;
    let mut headers = match header.properties.headers() {
        Some(headers) => headers.inner().clone(),
        None => Headers::new(),
    };
    let properties = change(header.properties, &mut headers).with_headers(headers.into());
    encode(AMQPContentHeader {
        class_id: header.class_id,
        body_size: header.body_size,
        properties,
    })
}

/// A content header's payload; `None` when it would be too large.
pub(crate) fn encode(header: AMQPContentHeader) -> Option<Bytes> {
    let frame = AMQPFrame::Header(0, header);
    let (written, _) = gen_frame(&frame)(WriteContext::from(Vec::new()))
        .ok()?
        .into_inner();
    let payload = written.get(FRAME_HEAD_BYTES..written.len().checked_sub(1)?)?;
    (payload.len() <= MAX_HEADER_BYTES).then(|| Bytes::copy_from_slice(payload))
}

/// A content header's payload with other properties and the same headers; `None` when it would be too large.
pub(crate) fn rewrite_properties(
    header: &[u8],
    change: impl FnOnce(AMQPProperties) -> AMQPProperties,
) -> Option<Bytes> {
    let header = parse_header(header).ok()?;
    encode(AMQPContentHeader {
        class_id: header.class_id,
        body_size: header.body_size,
        properties: change(header.properties),
    })
}

/// The properties without the `expiration`.
pub(crate) fn without_expiration(properties: AMQPProperties) -> AMQPProperties {
    if properties.expiration().is_none() {
        return properties;
    }
    let mut left = AMQPProperties::default();
    macro_rules! keep {
        ($($get:ident $set:ident),*) => {
            $(if let Some(value) = properties.$get().clone() {
                left = left.$set(value);
            })*
        };
    }
    keep!(
        content_type with_content_type,
        content_encoding with_content_encoding,
        headers with_headers,
        delivery_mode with_delivery_mode,
        priority with_priority,
        correlation_id with_correlation_id,
        reply_to with_reply_to,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        user_id with_user_id,
        app_id with_app_id,
        cluster_id with_cluster_id
    );
    left
}

/// More routing keys, from the headers `CC` and `BCC` that RabbitMQ knows too.
pub(crate) fn cc_keys(headers: Option<&Headers>) -> Result<Vec<Name>> {
    let mut cc_keys = Vec::new();
    let Some(headers) = headers else {
        return Ok(cc_keys);
    };
    for header in ["CC", "BCC"] {
        let keys = match headers.get(header) {
            None => continue,
            Some(AMQPValue::FieldArray(keys)) => keys,
            Some(other) => {
                return Err(AmqpError::precondition_failed(format!(
                    "invalid message: {{unacceptable_type_in_header,\"{header}\",{}}}",
                    type_name(other)
                )));
            }
        };
        cc_keys.extend(keys.as_slice().iter().filter_map(|key| match key {
            AMQPValue::LongString(key) => Some(Name::from(key.to_string())),
            _ => None,
        }));
    }
    Ok(cc_keys)
}

/// A content header without its header `BCC`, which receivers are not to see.
pub(crate) fn without_bcc(header: &[u8]) -> Result<Bytes> {
    rewrite(header, |properties, headers| {
        headers.remove("BCC");
        properties
    })
    .ok_or_else(|| AmqpError::precondition_failed("invalid message: its headers are too large"))
}
