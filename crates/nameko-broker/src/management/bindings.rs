//! Bindings: list, create, delete.

use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    exchanges::exchange_name,
    json::{table_from_json, table_to_json},
    request::Request,
    response::{ApiResponse, Result},
};
use crate::{
    binding::{Binding, Destination},
    vhost::{BindTo, VHostState},
};

/// Characters that are not percent-encoded in the name of a binding; spaces become `+`.
const KEY_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b' ');

/// Characters that are not percent-encoded in a path segment.
const SEGMENT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Selection of bindings.
#[derive(Clone, Copy, Debug)]
pub(super) enum BindingFilter<'a> {
    All,
    From(&'a str),
    To(BindTo<'a>),
    Between(&'a str, BindTo<'a>),
}

/// Handles `GET` of every list of bindings.
pub(super) fn list(request: &Request<'_>, only: Option<&str>, which: BindingFilter<'_>) -> Result {
    let mut list: Vec<Value> = Vec::new();
    let mut found = only.is_none();
    for (name, vhost) in request.broker.vhosts() {
        if only.is_none_or(|only| only == name) {
            found = true;
            list.extend(select(&vhost.lock(), which));
        }
    }
    // RabbitMQ checks only that the virtual host exists, and not even that if both ends are given.
    match found || !matches!(which, BindingFilter::All) {
        true => Ok(ApiResponse::json(list.into())),
        false => Err(ApiResponse::not_found()),
    }
}

/// `GET bindings/V/e/X/q|e/D/KEY`.
pub(super) fn get(
    request: &Request<'_>,
    vhost: &str,
    source: &str,
    to: BindTo<'_>,
    key: &str,
) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let state = vhost.lock();
    let mut all = select(&state, BindingFilter::Between(source, to)).into_iter();
    let found = all.find(|binding| binding["properties_key"] == key);
    found
        .map(ApiResponse::json)
        .ok_or_else(ApiResponse::not_found)
}

/// `POST bindings/V/e/X/q|e/D`.
pub(super) fn post(request: &Request<'_>, vhost: &str, source: &str, to: BindTo<'_>) -> Result {
    let fields = request.fields()?;
    let key = fields.name("routing_key")?.unwrap_or_default();
    let arguments = table_from_json(fields.get("arguments"))?;
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::no_vhost)?;
    let connection = request.broker.next_connection_id();
    let name = properties_key(key, &table_to_json(&arguments));
    vhost
        .update(|state| state.bind(exchange_name(source), to, key, arguments, connection))
        .map_err(ApiResponse::from_operation_error)?;
    let (BindTo::Queue(end) | BindTo::Exchange(end)) = to;
    let encode = |text| utf8_percent_encode(text, SEGMENT_UNRESERVED);
    let place = format!("{}/{}", encode(end), encode(&name));
    // Percent-encoded, so it is always a valid header value.
    let place = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static(""));
    Ok(ApiResponse::created_or_updated(true).with(header::LOCATION, place))
}

/// `DELETE bindings/V/e/X/q|e/D/KEY`.
pub(super) fn delete(
    request: &Request<'_>,
    vhost: &str,
    source: &str,
    to: BindTo<'_>,
    key: &str,
) -> Result {
    let vhost = request
        .broker
        .vhost(vhost)
        .ok_or_else(ApiResponse::not_found)?;
    let connection = request.broker.next_connection_id();
    vhost.update(|state| {
        let (destination, source) = (destination(state, to), exchange_name(source));
        let found = destination.as_ref().and_then(|destination| {
            let mut bindings = state.bindings.to(destination);
            bindings.find(|binding| {
                &*binding.source == source
                    && properties_key(&binding.key, &table_to_json(&binding.arguments)) == key
            })
        });
        let found = found.ok_or_else(ApiResponse::not_found)?;
        let (key, arguments) = (found.key.clone(), found.arguments.clone());
        state
            .unbind(source, to, &key, arguments, connection)
            .map_err(ApiResponse::from_operation_error)
    })?;
    Ok(ApiResponse::no_content())
}

/// Returns bindings as JSON, in order. Every queue is bound to the default exchange by its name.
fn select(state: &VHostState, which: BindingFilter<'_>) -> Vec<Value> {
    let (source, to) = match which {
        BindingFilter::All => (None, None),
        BindingFilter::From(source) => (Some(exchange_name(source)), None),
        BindingFilter::To(to) => (None, Some(to)),
        BindingFilter::Between(source, to) => (Some(exchange_name(source)), Some(to)),
    };
    let mut list = Vec::new();
    if source.is_none_or(str::is_empty) {
        match to {
            None => {
                let mut names: Vec<&str> = state.queue_ids.keys().map(|name| &**name).collect();
                names.sort_unstable();
                list.extend(names.into_iter().map(|name| implicit(state, name)));
            }
            // As in RabbitMQ, also for a queue that does not exist.
            Some(BindTo::Queue(name)) => list.push(implicit(state, name)),
            Some(BindTo::Exchange(_)) => {}
        }
    }
    let destination_filter = to.map(|to| destination(state, to));
    let mut bindings: Vec<(&Binding, &str)> = state
        .bindings
        .iter()
        .filter(|binding| source.is_none_or(|source| *binding.source == *source))
        .filter(|binding| {
            destination_filter
                .as_ref()
                .is_none_or(|destination| destination.as_ref() == Some(&binding.destination))
        })
        .filter_map(|binding| Some((&**binding, end(state, &binding.destination)?.1)))
        .collect();
    bindings.sort_by_key(|(binding, end)| (&binding.source, *end, &binding.key));
    list.extend(
        bindings
            .into_iter()
            .map(|(binding, _)| describe(state, binding)),
    );
    list
}

fn implicit(state: &VHostState, queue: &str) -> Value {
    json!({
        "source": "",
        "vhost": &*state.name,
        "destination": queue,
        "destination_type": "queue",
        "routing_key": queue,
        "arguments": {},
        "properties_key": properties_key(queue, &json!({})),
    })
}

fn describe(state: &VHostState, binding: &Binding) -> Value {
    let (kind, end) = end(state, &binding.destination).unwrap_or(("queue", ""));
    let arguments = table_to_json(&binding.arguments);
    json!({
        "source": &*binding.source,
        "vhost": &*state.name,
        "destination": end,
        "destination_type": kind,
        "routing_key": &*binding.key,
        "properties_key": properties_key(&binding.key, &arguments),
        "arguments": arguments,
    })
}

/// Returns the type and name of a destination.
fn end<'a>(state: &'a VHostState, destination: &'a Destination) -> Option<(&'static str, &'a str)> {
    match destination {
        Destination::Queue(id) => Some(("queue", &state.queues.get(id)?.name)),
        Destination::Exchange(name) => Some(("exchange", name)),
    }
}

fn destination(state: &VHostState, to: BindTo<'_>) -> Option<Destination> {
    match to {
        BindTo::Queue(name) => state.queue_ids.get(name).copied().map(Destination::Queue),
        BindTo::Exchange(name) => Some(Destination::Exchange(exchange_name(name).into())),
    }
}

/// Returns the name of a binding among those with the same ends: its routing key, and a digest of
/// its arguments unless they are empty. RabbitMQ's digest is of Erlang's external term format, so
/// it differs.
fn properties_key(key: &str, arguments: &Value) -> String {
    let quoted = utf8_percent_encode(key, KEY_UNRESERVED)
        .to_string()
        .replace(' ', "+");
    let none = arguments.as_object().is_none_or(serde_json::Map::is_empty);
    match (&*quoted, none) {
        ("", true) => "~".to_owned(),
        (_, true) => quoted,
        (_, false) => {
            // FNV-1a: short, and stable across processes.
            let digest = arguments
                .to_string()
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, byte| {
                    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
                });
            format!("{quoted}~{}", BASE64URL_NOPAD.encode(&digest.to_be_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_names_depend_on_key_and_arguments() {
        for (key, arguments, expected) in [
            ("", json!({}), "~"),
            ("a.b", json!({}), "a.b"),
            ("a ~#/", json!({}), "a+%7E%23%2F"),
        ] {
            assert_eq!(properties_key(key, &arguments), expected);
        }
        let one = properties_key("a", &json!({"x": 1}));
        assert!(
            one.starts_with("a~") && one != properties_key("a", &json!({"x": 2})),
            "{one}"
        );
        assert!(properties_key("", &json!({"x": 1})).starts_with('~'));
    }
}
