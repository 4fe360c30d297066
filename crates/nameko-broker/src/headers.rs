//! Rewriting of message properties and headers. This decodes and re-encodes the content header, so
//! it is used only where necessary.

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

/// A decoded header table.
pub(crate) type Headers = BTreeMap<ShortString, AMQPValue>;

/// Maximum size of a content header that the broker writes, in bytes. It must fit in one frame of
/// the default size, since it cannot be split; it also bounds the growth of messages that are
/// dead-lettered repeatedly.
const MAX_HEADER_BYTES: usize = (128 << 10) - FRAME_OVERHEAD_BYTES;

/// Re-encodes a content header with changed properties and headers. Returns `None` if the result is
/// too large.
///
/// `change` receives the properties, of which the headers are ignored, and the headers.
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

/// Encodes a content header. Returns `None` if it is too large.
pub(crate) fn encode(header: AMQPContentHeader) -> Option<Bytes> {
    let frame = AMQPFrame::Header(0, header);
    let (written, _) = gen_frame(&frame)(WriteContext::from(Vec::new()))
        .ok()?
        .into_inner();
    let payload = written.get(FRAME_HEAD_BYTES..written.len().checked_sub(1)?)?;
    (payload.len() <= MAX_HEADER_BYTES).then(|| Bytes::copy_from_slice(payload))
}

/// Re-encodes a content header with changed properties and unchanged headers. Returns `None` if the
/// result is too large.
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

/// Returns the properties without `expiration`.
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

/// Returns additional routing keys from the headers `CC` and `BCC`, an extension of RabbitMQ.
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

/// Removes the header `BCC`, which consumers must not see.
pub(crate) fn without_bcc(header: &[u8]) -> Result<Bytes> {
    rewrite(header, |properties, headers| {
        headers.remove("BCC");
        properties
    })
    .ok_or_else(|| AmqpError::precondition_failed("invalid message: its headers are too large"))
}
