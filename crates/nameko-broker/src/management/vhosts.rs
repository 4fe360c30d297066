//! Virtual hosts, users and permissions.

use serde_json::{Value, json};

use super::{
    body::check_name_length,
    overview::NODE,
    request::Request,
    response::{ApiResponse, Result},
};
use crate::vhost::VHostState;

/// `GET vhosts`.
pub(super) fn list(request: &Request<'_>) -> Result {
    let vhosts = request.broker.vhosts();
    let list: Vec<Value> = vhosts
        .iter()
        .map(|(_, vhost)| describe(&vhost.lock()))
        .collect();
    Ok(ApiResponse::json(list.into()))
}

/// `GET vhosts/V`.
pub(super) fn get(request: &Request<'_>, name: &str) -> Result {
    let vhost = request
        .broker
        .vhost(name)
        .ok_or_else(ApiResponse::not_found)?;
    let described = describe(&vhost.lock());
    Ok(ApiResponse::json(described))
}

/// `PUT vhosts/V`. The fields of the body have no effect.
pub(super) fn put(request: &Request<'_>, name: &str) -> Result {
    request.fields()?;
    check_name_length("vhost", name)?;
    Ok(ApiResponse::created_or_updated(
        request.broker.add_vhost(name),
    ))
}

/// `DELETE vhosts/V`.
pub(super) fn delete(request: &Request<'_>, name: &str) -> Result {
    match request.broker.delete_vhost(name) {
        true => Ok(ApiResponse::no_content()),
        false => Err(ApiResponse::not_found()),
    }
}

/// `GET whoami`.
pub(super) fn who_am_i(request: &Request<'_>) -> Result {
    Ok(ApiResponse::json(describe_user(request.user)))
}

/// `GET users`.
pub(super) fn users(request: &Request<'_>) -> Result {
    let users = request.broker.settings.users();
    let list: Vec<Value> = users.iter().map(|(user, _)| describe_user(user)).collect();
    Ok(ApiResponse::json(list.into()))
}

/// `GET users/U`.
pub(super) fn user(request: &Request<'_>, name: &str) -> Result {
    match is_user(request, name) {
        true => Ok(ApiResponse::json(describe_user(name))),
        false => Err(ApiResponse::not_found()),
    }
}

/// Handles `GET permissions` and `GET vhosts/V/permissions`.
pub(super) fn permissions(request: &Request<'_>, only: Option<&str>) -> Result {
    let mut list = Vec::new();
    let mut found = only.is_none();
    for (vhost, _) in request.broker.vhosts() {
        if only.is_none_or(|only| only == vhost) {
            found = true;
            let users = request.broker.settings.users();
            list.extend(users.iter().map(|(user, _)| full_permissions(user, &vhost)));
        }
    }
    match found {
        true => Ok(ApiResponse::json(list.into())),
        false => Err(ApiResponse::not_found()),
    }
}

/// `GET permissions/V/U`.
pub(super) fn permission(request: &Request<'_>, vhost: &str, user: &str) -> Result {
    match request.broker.vhost(vhost).is_some() && is_user(request, user) {
        true => Ok(ApiResponse::json(full_permissions(user, vhost))),
        false => Err(ApiResponse::not_found()),
    }
}

/// `PUT permissions/V/U`. Anything less than all permissions is refused, since it would not be
/// enforced.
pub(super) fn permit(request: &Request<'_>, vhost: &str, user: &str) -> Result {
    const KINDS: [&str; 3] = ["configure", "write", "read"];
    let fields = request.fields()?;
    fields.require(&KINDS)?;
    if request.broker.vhost(vhost).is_none() || !is_user(request, user) {
        return Err(ApiResponse::bad_request("vhost_or_user_not_found"));
    }
    for kind in KINDS {
        if fields.text(kind)? != Some(".*") {
            return Err(ApiResponse::bad_request(format!(
                "the embedded broker grants all permissions to every user: {kind} must be \".*\"; use RabbitMQ for permissions"
            )));
        }
    }
    Ok(ApiResponse::no_content())
}

fn describe(state: &VHostState) -> Value {
    let ready: usize = state.queues.values().map(|queue| queue.len()).sum();
    let unacked: usize = state
        .channels
        .values()
        .map(|channel| channel.unsettled().count())
        .sum();
    json!({
        "name": &*state.name,
        "description": "",
        "tags": [],
        "metadata": {"description": "", "tags": []},
        "tracing": false,
        "cluster_state": {NODE: "running"},
        "messages": ready + unacked,
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
    })
}

fn describe_user(name: &str) -> Value {
    json!({"name": name, "tags": ["administrator"]})
}

fn full_permissions(user: &str, vhost: &str) -> Value {
    json!({"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"})
}

fn is_user(request: &Request<'_>, name: &str) -> bool {
    let users = request.broker.settings.users();
    users.iter().any(|(user, _)| *user == name)
}
