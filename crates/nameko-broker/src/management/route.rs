//! Routing of requests by path and method.

use http::Method;
use hyper::body::Incoming;

use super::{
    bindings::{self, BindingFilter},
    connections, exchanges, messages, overview, queues,
    request::{Request, authenticate, path_segments, read_body},
    response::{ApiResponse, Result},
    vhosts,
};
use crate::{broker_state::BrokerState, vhost::BindTo};

const READ: &str = "HEAD, GET, OPTIONS";
const READ_DELETE: &str = "HEAD, GET, DELETE, OPTIONS";
const READ_POST: &str = "HEAD, GET, POST, OPTIONS";
const READ_PUT: &str = "HEAD, GET, PUT, OPTIONS";
const READ_PUT_DELETE: &str = "HEAD, GET, PUT, DELETE, OPTIONS";
const DELETE: &str = "DELETE, OPTIONS";
const POST: &str = "POST, OPTIONS";

/// A parsed path.
#[derive(Clone, Copy, Debug)]
enum Route<'a> {
    Overview,
    WhoAmI,
    Users,
    User(&'a str),
    VHosts,
    VHost(&'a str),
    VHostConnections(&'a str),
    Permissions(Option<&'a str>),
    Permission(&'a str, &'a str),
    Exchanges(Option<&'a str>),
    Exchange(&'a str, &'a str),
    Publish(&'a str, &'a str),
    Queues(Option<&'a str>),
    Queue(&'a str, &'a str),
    Contents(&'a str, &'a str),
    Get(&'a str, &'a str),
    Bindings(Option<&'a str>, BindingFilter<'a>),
    BindingsBetween(&'a str, &'a str, BindTo<'a>),
    Binding(&'a str, &'a str, BindTo<'a>, &'a str),
    Connections,
    Connection(&'a str),
    Channels(Option<&'a str>),
    Consumers(Option<&'a str>),
}

/// Handles one request.
pub(super) async fn respond(request: http::Request<Incoming>, broker: &BrokerState) -> ApiResponse {
    let (head, body) = request.into_parts();
    let answered = async {
        let user = authenticate(&head.headers, broker)?;
        let path = path_segments(head.uri.path())?;
        let body = read_body(body).await?;
        let method = match head.method {
            Method::HEAD => Method::GET,
            method => method,
        };
        let query = head.uri.query().unwrap_or_default();
        let request = Request::new(broker, user, method, query, &head.headers, &body);
        let path: Vec<&str> = path.iter().map(|segment| &**segment).collect();
        dispatch(&request, &path).await
    };
    answered.await.unwrap_or_else(|refusal| refusal)
}

/// Dispatches a request to its handler.
pub(super) async fn dispatch(request: &Request<'_>, path: &[&str]) -> Result {
    let route = Route::of(path).ok_or_else(ApiResponse::not_found)?;
    if request.method == Method::OPTIONS {
        return Ok(ApiResponse::options(route.methods()));
    }
    let get = request.method == Method::GET;
    match route {
        Route::Overview if get => overview::overview(request),
        Route::WhoAmI if get => vhosts::who_am_i(request),
        Route::Users if get => vhosts::users(request),
        Route::User(user) if get => vhosts::user(request, user),
        Route::VHosts if get => vhosts::list(request),
        Route::VHostConnections(vhost) if get => connections::list(request, Some(vhost)),
        Route::Permissions(vhost) if get => vhosts::permissions(request, vhost),
        Route::Exchanges(vhost) if get => exchanges::list(request, vhost),
        Route::Queues(vhost) if get => queues::list(request, vhost),
        Route::Bindings(vhost, which) if get => bindings::list(request, vhost, which),
        Route::Connections if get => connections::list(request, None),
        Route::Channels(connection) if get => connections::channels(request, connection),
        Route::Consumers(vhost) if get => connections::consumers(request, vhost),
        Route::VHost(vhost) => match request.method {
            Method::GET => vhosts::get(request, vhost),
            Method::PUT => vhosts::put(request, vhost),
            Method::DELETE => vhosts::delete(request, vhost),
            _ => Err(route.not_allowed()),
        },
        Route::Permission(vhost, user) => match request.method {
            Method::GET => vhosts::permission(request, vhost, user),
            Method::PUT => vhosts::permit(request, vhost, user),
            _ => Err(route.not_allowed()),
        },
        Route::Exchange(vhost, exchange) => match request.method {
            Method::GET => exchanges::get(request, vhost, exchange),
            Method::PUT => exchanges::put(request, vhost, exchange),
            Method::DELETE => exchanges::delete(request, vhost, exchange),
            _ => Err(route.not_allowed()),
        },
        Route::Queue(vhost, queue) => match request.method {
            Method::GET => queues::get(request, vhost, queue),
            Method::PUT => queues::put(request, vhost, queue),
            Method::DELETE => queues::delete(request, vhost, queue),
            _ => Err(route.not_allowed()),
        },
        Route::BindingsBetween(vhost, source, to) => match request.method {
            Method::GET => bindings::list(request, Some(vhost), BindingFilter::Between(source, to)),
            Method::POST => bindings::post(request, vhost, source, to),
            _ => Err(route.not_allowed()),
        },
        Route::Binding(vhost, source, to, key) => match request.method {
            Method::GET => bindings::get(request, vhost, source, to, key),
            Method::DELETE => bindings::delete(request, vhost, source, to, key),
            _ => Err(route.not_allowed()),
        },
        Route::Connection(name) => match request.method {
            Method::GET => connections::get(request, name),
            Method::DELETE => connections::delete(request, name).await,
            _ => Err(route.not_allowed()),
        },
        Route::Publish(vhost, exchange) if request.method == Method::POST => {
            messages::publish(request, vhost, exchange)
        }
        Route::Get(vhost, queue) if request.method == Method::POST => {
            messages::get(request, vhost, queue)
        }
        Route::Contents(vhost, queue) if request.method == Method::DELETE => {
            queues::purge(request, vhost, queue)
        }
        _ => Err(route.not_allowed()),
    }
}

impl<'a> Route<'a> {
    /// Parses the path segments after `/api/`.
    fn of(path: &[&'a str]) -> Option<Self> {
        Some(match *path {
            ["overview"] => Self::Overview,
            ["whoami"] => Self::WhoAmI,
            ["users"] => Self::Users,
            ["users", user] => Self::User(user),
            ["vhosts"] => Self::VHosts,
            ["vhosts", vhost] => Self::VHost(vhost),
            ["vhosts", vhost, "connections"] => Self::VHostConnections(vhost),
            ["vhosts", vhost, "permissions"] => Self::Permissions(Some(vhost)),
            ["permissions"] => Self::Permissions(None),
            ["permissions", vhost, user] => Self::Permission(vhost, user),
            ["exchanges"] => Self::Exchanges(None),
            ["exchanges", vhost] => Self::Exchanges(Some(vhost)),
            ["exchanges", vhost, exchange] => Self::Exchange(vhost, exchange),
            ["exchanges", vhost, exchange, "publish"] => Self::Publish(vhost, exchange),
            ["exchanges", vhost, exchange, "bindings", "source"] => {
                Self::Bindings(Some(vhost), BindingFilter::From(exchange))
            }
            ["exchanges", vhost, exchange, "bindings", "destination"] => {
                Self::Bindings(Some(vhost), BindingFilter::To(BindTo::Exchange(exchange)))
            }
            ["queues"] => Self::Queues(None),
            ["queues", vhost] => Self::Queues(Some(vhost)),
            ["queues", vhost, queue] => Self::Queue(vhost, queue),
            ["queues", vhost, queue, "contents"] => Self::Contents(vhost, queue),
            ["queues", vhost, queue, "get"] => Self::Get(vhost, queue),
            ["queues", vhost, queue, "bindings"] => {
                Self::Bindings(Some(vhost), BindingFilter::To(BindTo::Queue(queue)))
            }
            ["bindings"] => Self::Bindings(None, BindingFilter::All),
            ["bindings", vhost] => Self::Bindings(Some(vhost), BindingFilter::All),
            ["bindings", vhost, "e", source, kind, end] => {
                Self::BindingsBetween(vhost, source, bind_to(kind, end)?)
            }
            ["bindings", vhost, "e", source, kind, end, key] => {
                Self::Binding(vhost, source, bind_to(kind, end)?, key)
            }
            ["connections"] => Self::Connections,
            ["connections", name] => Self::Connection(name),
            ["connections", name, "channels"] => Self::Channels(Some(name)),
            ["channels"] => Self::Channels(None),
            ["consumers"] => Self::Consumers(None),
            ["consumers", vhost] => Self::Consumers(Some(vhost)),
            _ => return None,
        })
    }

    fn not_allowed(self) -> ApiResponse {
        ApiResponse::not_allowed(self.methods())
    }

    /// Returns the allowed methods, in the format of the header `Allow`.
    fn methods(self) -> &'static str {
        match self {
            Self::VHost(_) | Self::Exchange(..) | Self::Queue(..) => READ_PUT_DELETE,
            Self::Permission(..) => READ_PUT,
            Self::BindingsBetween(..) => READ_POST,
            Self::Binding(..) | Self::Connection(_) => READ_DELETE,
            Self::Publish(..) | Self::Get(..) => POST,
            Self::Contents(..) => DELETE,
            _ => READ,
        }
    }
}

fn bind_to<'a>(kind: &str, end: &'a str) -> Option<BindTo<'a>> {
    match kind {
        "q" => Some(BindTo::Queue(end)),
        "e" => Some(BindTo::Exchange(end)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use proptest::{prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::Settings;

    /// Segments of valid paths, so that generated requests get beyond the first one.
    const WORDS: &[&str] = &[
        "overview",
        "users",
        "vhosts",
        "permissions",
        "exchanges",
        "queues",
        "bindings",
        "connections",
        "channels",
        "consumers",
        "guest",
        "/",
        "v",
        "q",
        "x",
        "e",
        "amq.topic",
        "amq.default",
        "get",
        "publish",
        "contents",
        "source",
        "destination",
        "a",
        "~",
        "",
    ];
    const FIELDS: &[&str] = &[
        "routing_key",
        "payload",
        "payload_encoding",
        "properties",
        "arguments",
        "count",
        "ackmode",
        "encoding",
        "requeue",
        "truncate",
        "durable",
        "auto_delete",
        "type",
        "internal",
        "configure",
        "write",
        "read",
        "headers",
        "expiration",
        "x-expires",
        "x-dead-letter-exchange",
        "x-max-length",
        "x-max-priority",
        "priority",
        "delivery_mode",
        "user_id",
        "CC",
    ];

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2i64..300).prop_map(Value::from),
            any::<f64>().prop_map(|n| json!(n)),
            select(vec![
                "",
                "q",
                "string",
                "base64",
                "auto",
                "ack_requeue_true",
                "reject_requeue_false",
                "topic",
                ".*",
                "5"
            ])
            .prop_map(Value::from),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::vec((select(FIELDS), inner), 0..8).prop_map(|fields| {
                    let fields = fields.into_iter();
                    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_request_gets_a_response(
            requests in prop::collection::vec(
                (
                    select(vec![Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS]),
                    prop::collection::vec(select(WORDS), 0..8),
                    json_values(),
                ),
                1..12,
            ),
        ) {
            let (broker, _timers) = BrokerState::new(Settings::default());
            let broker = Arc::new(broker);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for (method, path, body) in requests {
                let (headers, body) = (HeaderMap::new(), body.to_string());
                let request = Request::new(&broker, "guest", method, "", &headers, body.as_bytes());
                let answered = runtime.block_on(dispatch(&request, &path));
                let answer = answered.unwrap_or_else(|refusal| refusal).into_response();
                prop_assert!(!answer.status().is_server_error());
            }
        }
    }
}
