//! Dispatch of requests to routes, behind all layers.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, StatusCode, Version, header, header::HeaderValue, uri::Authority};

use super::{
    error::Error,
    error_format::{self, ErrorFormat, RequestHead},
    gate::Admission,
    raw::RawRequest,
    request_body::{BoxError, RequestBody},
    response::{Content, Response},
    response_body::ResponseBody,
    router::Found,
    socket::Wire,
    target::Table,
};

/// The connection of a request and the routes at its arrival.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) table: Arc<Table>,
    pub(super) wire: Arc<Wire>,
    pub(super) peer: SocketAddr,
}

/// Dispatches a request that has passed all layers.
pub(super) async fn routes(
    mut request: http::Request<RequestBody>,
) -> http::Response<ResponseBody> {
    match request.extensions_mut().remove::<Exchange>() {
        Some(exchange) => dispatch(request, &exchange).await,
        None => {
            let text = "a layer has removed the extensions of the request";
            tracing::error!("cannot dispatch a request: {text}");
            let error = Error::new(StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
            let (head, content) = error.into_parts();
            http::Response::from_parts(head, ResponseBody::of_bytes(content))
        }
    }
}

/// Dispatches a request to its route.
pub(super) async fn dispatch(
    request: http::Request<RequestBody>,
    exchange: &Exchange,
) -> http::Response<ResponseBody> {
    let table = &exchange.table;
    let to_head = request.method() == Method::HEAD;
    let kept = table.has_formats.then(|| RequestHead::of(&request));
    let unrouted = table.errors.as_deref();
    let response = if let Some(refusal) = refuse_host(&request) {
        formatted(refusal, unrouted, kept.as_ref())
    } else {
        let path = request.uri().path();
        match table.router.find(request.method(), path) {
            Found::Route(route, values) => {
                let response = match route.gate.admit(exchange.wire.accepted()) {
                    Admission::Admitted => {
                        let raw = RawRequest::new(
                            request,
                            route.template.names(),
                            values,
                            exchange.peer,
                            exchange.wire.clone(),
                        );
                        route.handler.handle(raw).await
                    }
                    Admission::Starting => Error::starting().into_response(),
                    Admission::Stopping => Error::stopping().into_response(),
                };
                formatted(response, route.errors.as_deref(), kept.as_ref())
            }
            other => formatted(unroutable(&request, other), unrouted, kept.as_ref()),
        }
    };
    finish(response, to_head, &exchange.wire)
}

/// Returns the response to a request without a route.
fn unroutable(request: &http::Request<RequestBody>, found: Found) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    match found {
        _ if method == Method::OPTIONS && path == "*" => Response::empty(StatusCode::NO_CONTENT),
        Found::NotAllowed(allow) if method == Method::OPTIONS => {
            with_allow(Response::empty(StatusCode::NO_CONTENT), &allow)
        }
        Found::NotAllowed(allow) => {
            let text = format!("{path} is for {allow}, not for {method}");
            let error = Error::new(StatusCode::METHOD_NOT_ALLOWED, text);
            with_allow(error.into_response(), &allow)
        }
        Found::BadPath => {
            Error::bad_request("the path, once decoded, is not UTF-8").into_response()
        }
        Found::Nowhere | Found::Route(..) => {
            Error::not_found(format!("no route for {path}")).into_response()
        }
    }
}

fn with_allow(mut response: Response, allow: &str) -> Response {
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn formatted(
    response: Response,
    format: Option<&dyn ErrorFormat>,
    request: Option<&RequestHead>,
) -> Response {
    match (format, request) {
        (Some(format), Some(request)) => error_format::apply(format, response, request),
        _ => response,
    }
}

/// Converts a response for the connection. The server frames the body: a wrong length set by a
/// method would corrupt the next response.
pub(super) fn finish(
    response: Response,
    to_head: bool,
    wire: &Arc<Wire>,
) -> http::Response<ResponseBody> {
    let (mut head, content) = response.into_parts();
    // A 204 has no Content-Length (RFC 9110, section 8.6).
    let no_length = head.status == StatusCode::NO_CONTENT || matches!(content, Content::Bytes(_));
    if no_length || !to_head && matches!(content, Content::Empty) {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    http::Response::from_parts(head, ResponseBody::of(content, wire))
}

/// Returns the response to a request without a valid `Host` header. Source: RFC 9112, section 3.2.
pub(super) fn refuse_host(request: &http::Request<RequestBody>) -> Option<Response> {
    if has_valid_host(request.version(), request.headers()) {
        return None;
    }
    let text = "an HTTP/1.1 request must have exactly one valid Host header";
    let mut refusal = Error::bad_request(text).into_response();
    let close = HeaderValue::from_static("close");
    refusal.headers_mut().insert(header::CONNECTION, close);
    Some(refusal)
}

fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => {
            is_plain_host(host.as_bytes())
                || Authority::try_from(host.as_bytes())
                    .is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (Some(_), Some(_)) => false,
    }
}

/// Returns whether the host is empty, or a name or address with or without a port: the usual ones,
/// which need no parser.
fn is_plain_host(host: &[u8]) -> bool {
    let mut parts = host.splitn(2, |byte| *byte == b':');
    let (name, port) = (parts.next().unwrap_or_default(), parts.next());
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    name.iter().all(in_name)
        && port
            .is_none_or(|port| (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit))
        && (port.is_none() || !name.is_empty())
}

/// The data for the response to an error of a layer, kept while the layer runs.
pub(super) struct Failing {
    /// `None` if an outer layer has removed the request's extensions.
    exchange: Option<Exchange>,
    head: Option<RequestHead>,
}

impl Failing {
    pub(super) fn of(request: &http::Request<RequestBody>) -> Self {
        let exchange = request.extensions().get::<Exchange>().cloned();
        let format = exchange
            .as_ref()
            .and_then(|exchange| exchange.table.errors.as_ref());
        Self {
            head: format.map(|_| RequestHead::of(request)),
            exchange,
        }
    }

    /// Returns the response to an error of the layer: that of a `web::Error` among its sources, or
    /// a 500.
    pub(super) fn respond(self, error: &BoxError) -> http::Response<ResponseBody> {
        let response = Error::among_causes(&**error)
            .unwrap_or_else(|| {
                tracing::error!("a layer around the web server failed: {error}");
                Error::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            })
            .into_response();
        let format = self
            .exchange
            .as_ref()
            .and_then(|exchange| exchange.table.errors.as_deref());
        let response = formatted(response, format, self.head.as_ref());
        let (head, content) = response.into_parts();
        http::Response::from_parts(head, ResponseBody::of_bytes(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_valid_host() {
        let names = |version, hosts: &[&'static str]| {
            let hosts = hosts
                .iter()
                .map(|host| (header::HOST, HeaderValue::from_static(host)));
            has_valid_host(version, &hosts.collect())
        };
        for host in [
            "",
            "x",
            "x:80",
            "a.b-c.d_e:1",
            "1.2.3.4",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(names(Version::HTTP_11, &[host]), "{host}");
        }
        for host in ["a b", "a/b", "u@x", "http://x"] {
            assert!(!names(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(!names(Version::HTTP_11, &[]));
        assert!(names(Version::HTTP_10, &[]));
        assert!(!names(Version::HTTP_11, &["x", "x"]));
        assert!(!names(Version::HTTP_10, &["x", "y"]));
    }
}
