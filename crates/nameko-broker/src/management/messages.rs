//! Messages: publish, get.

use std::sync::Arc;

use amq_protocol::{frame::AMQPContentHeader, protocol::basic::AMQPProperties, types::FieldTable};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{
    body::Fields,
    exchanges::exchange_name,
    json::{properties_from_json, properties_to_json},
    request::Request,
    response::{ApiResponse, Result},
};
use crate::{
    channel::PUBLISH,
    channel_consumers::Settlement,
    error::{AmqpError, Result as Operation},
    frame::parse_header,
    headers,
    ids::{ChannelId, ConnectionId},
    send_buffer::SendBuffer,
    vhost::{GetResult, IncomingPublish, Published, VHost, VHostState},
};

/// Settlement of messages that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckMode {
    /// Acknowledged.
    Ack,
    /// Requeued.
    Requeue,
    /// Dead-lettered, or dropped without a dead-letter exchange.
    Reject,
}

/// `POST exchanges/V/X/publish`.
pub(super) fn publish(request: &Request<'_>, vhost: &str, exchange: &str) -> Result {
    let fields = request.fields()?;
    fields.require(&["routing_key", "properties", "payload", "payload_encoding"])?;
    let key = fields.name("routing_key")?.unwrap_or_default();
    let body = payload(&fields)?;
    let properties = properties_from_json(fields.get("properties"))?;
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    if body.len() as u64 > request.broker.settings.max_message_size {
        return Err(ApiResponse::from_publish_error(
            AmqpError::precondition_failed(format!(
                "message size {} is larger than configured max size {}",
                body.len(),
                request.broker.settings.max_message_size
            )),
        ));
    }
    let header = headers::encode(AMQPContentHeader {
        class_id: PUBLISH.0,
        body_size: body.len() as u64,
        properties: properties.clone(),
    });
    let header = header.ok_or_else(|| ApiResponse::bad_request("the properties are too large"))?;
    let connection = request.broker.next_connection_id();
    let published = with_temporary_channel(&vhost, connection, |state, channel| {
        let message = state.validate_publish(IncomingPublish {
            exchange: exchange_name(exchange),
            routing_key: key.to_owned(),
            properties: &properties,
            header,
            body: body.into(),
            user: request.user,
            channel,
        })?;
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        Ok(state.publish(message, headers))
    });
    match published.map_err(ApiResponse::from_publish_error)? {
        Published::Routed => Ok(ApiResponse::json(json!({"routed": true}))),
        // RabbitMQ reports a message rejected by a full queue as not routed.
        Published::Unroutable | Published::Rejected => {
            Ok(ApiResponse::json(json!({"routed": false})))
        }
    }
}

/// `POST queues/V/Q/get`.
pub(super) fn get(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let fields = request.fields()?;
    let mode = AckMode::of(&fields)?;
    let count = fields.integer("count")?.unwrap_or_default();
    let only_base64 = match fields.text("encoding")? {
        Some("auto") => false,
        Some("base64") => true,
        _ => {
            return Err(ApiResponse::bad_request(
                "Unsupported encoding. Please use auto or base64.",
            ));
        }
    };
    let truncate = fields.integer("truncate")?.map(|size| size.max(0) as usize);
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    let connection = request.broker.next_connection_id();
    let read = with_temporary_channel(&vhost, connection, |state, channel| {
        let mut read = Vec::new();
        // The queue must exist even if no message is requested.
        state.queue_for(name, connection)?;
        for _ in 0..count.max(0) {
            match state.get(channel, name, mode == AckMode::Ack, connection)? {
                Some(got) => read.push(got),
                None => break,
            }
        }
        let outcome = match mode {
            AckMode::Ack => return Ok(read),
            AckMode::Requeue => Settlement::Requeue,
            AckMode::Reject => Settlement::Reject,
        };
        state.settle(channel, 0, true, outcome)?;
        Ok(read)
    });
    let read = read.map_err(ApiResponse::from_get_error)?;
    let messages: Vec<Value> = read
        .iter()
        .map(|got| describe(got, only_base64, truncate))
        .collect();
    Ok(ApiResponse::json(messages.into()))
}

impl AckMode {
    /// Parses the mode. Before version 3.7, RabbitMQ used the field `requeue` instead.
    fn of(fields: &Fields) -> Result<Self> {
        let mode = match (fields.get("ackmode"), fields.flag("requeue")?) {
            (None, Some(requeue)) => {
                fields.require(&["count", "encoding"])?;
                return Ok(if requeue { Self::Requeue } else { Self::Ack });
            }
            (mode, _) => mode,
        };
        fields.require(&["ackmode", "count", "encoding"])?;
        match mode.and_then(Value::as_str) {
            Some("ack_requeue_false") => Ok(Self::Ack),
            Some("ack_requeue_true" | "reject_requeue_true") => Ok(Self::Requeue),
            Some("reject_requeue_false") => Ok(Self::Reject),
            _ => Err(ApiResponse::bad_request(
                "ackmode is one of ack_requeue_true, ack_requeue_false, reject_requeue_true, reject_requeue_false",
            )),
        }
    }
}

/// Performs an operation on a temporary channel.
fn with_temporary_channel<T>(
    vhost: &VHost,
    connection: ConnectionId,
    operation: impl FnOnce(&mut VHostState, ChannelId) -> Operation<T>,
) -> Operation<T> {
    vhost.update(|state| {
        // Nothing is delivered to this channel, since it has no consumers.
        let channel = state.open_channel(1, Arc::new(SendBuffer::new(connection)), false);
        let done = operation(state, channel);
        state.close_channel(channel);
        done
    })
}

fn payload(fields: &Fields) -> Result<Vec<u8>> {
    let Some(Value::String(payload)) = fields.get("payload") else {
        return Err(ApiResponse::bad_request("payload_not_string"));
    };
    match fields.text("payload_encoding")? {
        Some("string") => Ok(payload.clone().into_bytes()),
        Some("base64") => BASE64
            .decode(payload.as_bytes())
            .map_err(|_| ApiResponse::bad_request(json!(["not_base64", payload]))),
        other => Err(ApiResponse::bad_request(json!([
            "unsupported_encoding",
            other
        ]))),
    }
}

fn describe(got: &GetResult, only_base64: bool, truncate: Option<usize>) -> Value {
    let counted = got.entry.with_delivery_count();
    let message = counted.as_ref().unwrap_or(&got.entry.message);
    let properties = match parse_header(&message.header) {
        Ok(header) => header.properties,
        Err(_) => AMQPProperties::default(),
    };
    let shown = truncate.and_then(|size| message.body.get(..size));
    let shown = shown.unwrap_or(&message.body);
    let (payload, encoding) = match std::str::from_utf8(shown) {
        Ok(text) if !only_base64 => (text.to_owned(), "string"),
        _ => (BASE64.encode(shown), "base64"),
    };
    json!({
        "payload_bytes": message.body.len(),
        "redelivered": got.entry.redelivered,
        "exchange": &*message.exchange,
        "routing_key": &*message.routing_key,
        "message_count": got.messages,
        "properties": properties_to_json(&properties),
        "payload": payload,
        "payload_encoding": encoding,
    })
}
