//! Exchanges: list, declare, delete.

use serde_json::{Value, json};

use super::{
    body::fits,
    json::{of_table, table},
    request::Request,
    response::{ApiResponse, Result},
    within,
};
use crate::{exchange::Exchange, exchanges::DeclareExchange, vhost::VHostState};

/// The exchange of a path: the one without a name is called `amq.default` there.
pub(super) fn named(name: &str) -> &str {
    match name {
        "amq.default" => "",
        name => name,
    }
}

/// `GET exchanges`, or those of one virtual host.
pub(super) fn list(request: &Request<'_>, only: Option<&str>) -> Result {
    let mut list = Vec::new();
    let mut found = only.is_none();
    for (vhost, held) in request.shared.vhosts() {
        if only.is_none_or(|it| it == vhost) {
            found = true;
            let state = held.lock();
            let mut exchanges: Vec<&Exchange> = state.exchanges.values().collect();
            exchanges.sort_unstable_by_key(|exchange| &exchange.name);
            list.extend(exchanges.into_iter().map(|it| describe(it, &state)));
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
        .shared
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let state = vhost.lock();
    let exchange = state.exchanges.get(named(name));
    let exchange = exchange.ok_or_else(ApiResponse::not_found)?;
    Ok(ApiResponse::json(describe(exchange, &state)))
}

/// `PUT exchanges/V/X`.
pub(super) fn put(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let fields = request.fields()?;
    let ask = DeclareExchange {
        name: fits("exchange", named(name))?,
        kind: fields.name("type")?.unwrap_or("direct"),
        passive: false,
        durable: fields.flag("durable")?.unwrap_or(false),
        auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
        internal: fields.flag("internal")?.unwrap_or(false),
        table: table(fields.get("arguments"))?,
    };
    let vhost = request
        .shared
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    within(&vhost, |state| {
        let new = !state.exchanges.contains_key(ask.name);
        state.declare_exchange(ask)?;
        Ok(ApiResponse::made(new))
    })
    .map_err(ApiResponse::of_operation)
}

/// `DELETE exchanges/V/X`.
pub(super) fn delete(request: &Request<'_>, vhost: &str, name: &str) -> Result {
    let vhost = request
        .shared
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    within(&vhost, |state| {
        if !state.exchanges.contains_key(named(name)) {
            return Err(ApiResponse::not_found());
        }
        state
            .delete_exchange(named(name), request.asks("if-unused"))
            .map_err(ApiResponse::of_operation)
    })?;
    Ok(ApiResponse::done())
}

fn describe(exchange: &Exchange, state: &VHostState) -> Value {
    json!({
        "name": &*exchange.name,
        "vhost": &*state.name,
        "type": exchange.kind.to_string(),
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": of_table(&exchange.table),
    })
}
