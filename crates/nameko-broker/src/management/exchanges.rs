//! Exchanges: list, declare, delete.

use serde_json::{Value, json};

use super::{
    body::check_name_length,
    json::{table_from_json, table_to_json},
    request::Request,
    response::{ApiResponse, Result},
};
use crate::{
    exchange::Exchange,
    vhost::{DeclareExchange, VHostState},
};

/// Maps the name in a path to an exchange: the default exchange is `amq.default` there.
pub(super) fn exchange_name(name: &str) -> &str {
    match name {
        "amq.default" => "",
        name => name,
    }
}

/// Handles `GET exchanges` and `GET exchanges/V`.
pub(super) fn list(request: &Request<'_>, only: Option<&str>) -> Result {
    let mut list = Vec::new();
    let mut found = only.is_none();
    for (name, vhost) in request.broker.vhosts() {
        if only.is_none_or(|only| only == name) {
            found = true;
            let state = vhost.lock();
            let mut exchanges: Vec<&Exchange> = state.exchanges.values().collect();
            exchanges.sort_unstable_by_key(|exchange| &exchange.name);
            list.extend(
                exchanges
                    .into_iter()
                    .map(|exchange| describe(exchange, &state)),
            );
        }
    }
    match found {
        true => Ok(ApiResponse::json(list.into())),
        false => Err(ApiResponse::not_found()),
    }
}

/// `GET exchanges/V/X`.
pub(super) fn get(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let state = vhost.lock();
    let exchange = state.exchanges.get(exchange_name(name));
    let exchange = exchange.ok_or_else(ApiResponse::not_found)?;
    Ok(ApiResponse::json(describe(exchange, &state)))
}

/// `PUT exchanges/V/X`.
pub(super) fn put(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let fields = request.fields()?;
    let declare = DeclareExchange {
        name: check_name_length("exchange", exchange_name(name))?,
        kind: fields.name("type")?.unwrap_or("direct"),
        passive: false,
        durable: fields.flag("durable")?.unwrap_or(false),
        auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
        internal: fields.flag("internal")?.unwrap_or(false),
        table: table_from_json(fields.get("arguments"))?,
    };
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    vhost
        .update(|state| {
            let new = !state.exchanges.contains_key(declare.name);
            state.declare_exchange(declare)?;
            Ok(ApiResponse::created_or_updated(new))
        })
        .map_err(ApiResponse::from_operation_error)
}

/// `DELETE exchanges/V/X`.
pub(super) fn delete(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    vhost.update(|state| {
        if !state.exchanges.contains_key(exchange_name(name)) {
            return Err(ApiResponse::not_found());
        }
        state
            .delete_exchange(exchange_name(name), request.query_flag("if-unused"))
            .map_err(ApiResponse::from_operation_error)
    })?;
    Ok(ApiResponse::no_content())
}

fn describe(exchange: &Exchange, state: &VHostState) -> Value {
    json!({
        "name": &*exchange.name,
        "vhost": &*state.name,
        "type": exchange.kind.to_string(),
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": table_to_json(&exchange.table),
    })
}
