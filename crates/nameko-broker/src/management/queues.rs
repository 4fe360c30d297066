//! Queues: list, declare, delete, purge.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    body::check_name_length,
    connections::ConnectionIndex,
    json::{table_from_json, table_to_json},
    overview::NODE,
    request::Request,
    response::{ApiResponse, Result},
};
use crate::{
    arguments::QueueKind,
    ids::QueueId,
    queue::Queue,
    vhost::{DeclareQueue, VHostState},
};

/// Handles `GET queues` and `GET queues/V`.
pub(super) fn list(request: &Request<'_>, only: Option<&str>) -> Result {
    let names = ConnectionIndex::new(request.broker);
    let mut list: Vec<Value> = Vec::new();
    let mut found = only.is_none();
    for (name, vhost) in request.broker.vhosts() {
        if only.is_none_or(|only| only == name) {
            found = true;
            let state = vhost.lock();
            let unacked = unacked(&state);
            let mut queues: Vec<(&QueueId, &Queue)> = state.queues.iter().collect();
            queues.sort_unstable_by_key(|(_, queue)| &queue.name);
            let queues = queues.into_iter();
            list.extend(
                queues.map(|(id, queue)| describe(*id, queue, &state, &unacked, &names).into()),
            );
        }
    }
    match found {
        true => Ok(ApiResponse::json(list.into())),
        false => Err(ApiResponse::not_found()),
    }
}

/// `GET queues/V/Q`.
pub(super) fn get(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let names = ConnectionIndex::new(request.broker);
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let state = vhost.lock();
    let found = state.queue_ids.get(name);
    let found = found.and_then(|id| Some((*id, state.queues.get(id)?)));
    let (id, queue) = found.ok_or_else(ApiResponse::not_found)?;
    let mut described = describe(id, queue, &state, &unacked(&state), &names);
    let consumers = queue.consumers.iter();
    let consumers: Vec<Value> = consumers
        .filter_map(|id| names.consumer(id, &state))
        .collect();
    described.insert("consumer_details".to_owned(), consumers.into());
    Ok(ApiResponse::json(described.into()))
}

/// `PUT queues/V/Q`.
pub(super) fn put(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let fields = request.fields()?;
    let declare = DeclareQueue {
        name: check_name_length("queue", name)?,
        passive: false,
        durable: fields.flag("durable")?.unwrap_or(false),
        // It would be deleted at once, at the end of the request.
        exclusive: false,
        auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
        table: table_from_json(fields.get("arguments"))?,
    };
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    let connection = request.broker.next_connection_id();
    vhost
        .update(|state| {
            let new = !state.queue_ids.contains_key(name);
            state.declare_queue(declare, connection)?;
            Ok(ApiResponse::created_or_updated(new))
        })
        .map_err(ApiResponse::from_operation_error)
}

/// `DELETE queues/V/Q`.
pub(super) fn delete(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let connection = request.broker.next_connection_id();
    let (if_unused, if_empty) = (
        request.query_flag("if-unused"),
        request.query_flag("if-empty"),
    );
    vhost.update(|state| {
        if !state.queue_ids.contains_key(name) {
            return Err(ApiResponse::not_found());
        }
        state
            .delete_queue_by_name(name, if_unused, if_empty, connection)
            .map_err(ApiResponse::from_operation_error)
    })?;
    Ok(ApiResponse::no_content())
}

/// `DELETE queues/V/Q/contents`.
pub(super) fn purge(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let connection = request.broker.next_connection_id();
    vhost.update(|state| {
        if !state.queue_ids.contains_key(name) {
            return Err(ApiResponse::not_found());
        }
        state
            .purge(name, connection)
            .map_err(ApiResponse::from_operation_error)
    })?;
    Ok(ApiResponse::no_content())
}

/// Counts unacknowledged messages and their bytes by queue.
fn unacked(state: &VHostState) -> HashMap<QueueId, (usize, usize)> {
    let mut counts: HashMap<QueueId, (usize, usize)> = HashMap::new();
    for delivered in state
        .channels
        .values()
        .flat_map(|channel| channel.unsettled())
    {
        let (count, bytes) = counts.entry(delivered.queue).or_default();
        *count += 1;
        *bytes += delivered.entry.message.body.len();
    }
    counts
}

fn describe(
    id: QueueId,
    queue: &Queue,
    state: &VHostState,
    unacked: &HashMap<QueueId, (usize, usize)>,
    names: &ConnectionIndex,
) -> Map<String, Value> {
    let ready = queue.len();
    let (unacked, unacked_bytes) = unacked.get(&id).copied().unwrap_or_default();
    let tag = |consumer| Some(state.consumers.get(&consumer?)?.tag.to_string());
    let kind = match queue.arguments.kind {
        QueueKind::Classic => "classic",
        QueueKind::Quorum => "quorum",
    };
    let described = json!({
        "name": &*queue.name,
        "vhost": &*state.name,
        "type": kind,
        "node": NODE,
        "state": "running",
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "exclusive": queue.owner.is_some(),
        "arguments": table_to_json(&queue.table),
        "policy": null,
        "consumers": queue.consumers.len(),
        "exclusive_consumer_tag": tag(queue.exclusive_consumer),
        "single_active_consumer_tag": tag(queue.active_consumer),
        "messages": ready + unacked,
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
        "message_bytes": queue.ready_bytes() + unacked_bytes as u64,
        "message_bytes_ready": queue.ready_bytes(),
        "message_bytes_unacknowledged": unacked_bytes,
    });
    let mut fields = match described {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if let Some(owner) = queue.owner {
        fields.insert("owner_pid_details".to_owned(), names.connection(owner));
    }
    fields
}
