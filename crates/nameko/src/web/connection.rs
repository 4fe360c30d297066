//! A client connection, which dispatches its requests in sequence.

use std::{
    convert::Infallible,
    error::Error as StdError,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header, header::HeaderValue, uri::Authority};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use super::{
    error::Error,
    raw::RawRequest,
    response::{ByteStream, Content, Response},
    router::Found,
    socket::{Phase, Socket, Wire},
    target::{Shared, Target},
};

/// Maximum size of the request line and headers, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time limit for draining a client that keeps sending after its connection is refused.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Response to a client that exceeds the header timeout.
const REQUEST_TIMEOUT_RESPONSE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
) {
    // Responses are written at once; Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream, permit);
    let io = TokioIo::new(Socket::new(wire.clone(), shared.limits));
    let service = service_fn(|request| {
        let (shared, wire) = (shared.clone(), wire.clone());
        async move { Ok::<_, Infallible>(answer(request, &shared, wire, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // `Socket` enforces the timeout, since it distinguishes idle connections from slow
        // requests.
        .header_read_timeout(None)
        // A client may shut down its sending side before the response.
        .half_close(true)
        .keep_alive(!shared.limits.keep_alive.is_zero())
        .max_buf_size(MAX_HEAD_BYTES)
        // Some clients expect the title case of earlier servers.
        .title_case_headers(matches!(shared.target, Target::Embedded(_)))
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut closing = shared.closing.subscribe();
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None if matches!(wire.phase(), Phase::New | Phase::Idle) => return,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let refused = match ended {
        Ok(()) => wire.is_unread(),
        Err(error) => {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::debug!(%peer, "connection ended: {error} {why}");
            wire.is_unread() || wire.is_late() || error.is_parse()
        }
    };
    if wire.is_late() {
        wire.write_now(REQUEST_TIMEOUT_RESPONSE);
    }
    if refused {
        tokio::select! {
            () = wire.linger(LINGER_TIMEOUT) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}

/// Responds to one request.
async fn answer(
    request: http::Request<Incoming>,
    shared: &Shared,
    wire: Arc<Wire>,
    peer: SocketAddr,
) -> http::Response<Outgoing> {
    wire.set_phase(Phase::Busy);
    let begun = Instant::now();
    let log = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    let to_head = request.method() == Method::HEAD;
    // A body counts as unread until the handler has read it.
    wire.set_unread(!request.body().is_end_stream());
    let response = if has_valid_host(request.version(), request.headers()) {
        route(request, shared, &wire, peer).await
    } else {
        let text = "an HTTP/1.1 request must have exactly one valid Host header";
        let mut refusal = Error::bad_request(text).into_response();
        let close = HeaderValue::from_static("close");
        refusal.headers_mut().insert(header::CONNECTION, close);
        refusal
    };
    if let Some((method, path)) = log {
        tracing::debug!(%peer, "{method} {path}: {} in {:?}", response.status_code(), begun.elapsed());
    }
    let (mut head, content) = response.into_parts();
    let (status, headers) = (head.status, &mut head.headers);
    if wire.is_unread() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // The server frames the body: a wrong length set by a method would corrupt the next response.
    headers.remove(header::TRANSFER_ENCODING);
    // A 204 has no Content-Length (RFC 9110, section 8.6).
    let no_length = status == StatusCode::NO_CONTENT || matches!(content, Content::Bytes(_));
    if no_length || !to_head && matches!(content, Content::Empty) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let body = match content {
        Content::Empty => Outgoing::Bytes(None),
        Content::Bytes(bytes) => Outgoing::Bytes(Some(bytes)),
        Content::Stream(stream) => Outgoing::Stream {
            stream: stream.into_inner().unwrap_or_else(PoisonError::into_inner),
            wire: wire.clone(),
        },
    };
    // The protocol after an upgrade has its own timeouts.
    if status != StatusCode::SWITCHING_PROTOCOLS {
        wire.set_phase(Phase::Answered);
    }
    http::Response::from_parts(head, body)
}

/// Returns `true` if a request has a valid `Host` header. Source: RFC 9112, section 3.2.
fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => {
            host.is_empty()
                || Authority::try_from(host.as_bytes())
                    .is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (Some(_), Some(_)) => false,
    }
}

async fn route(
    request: http::Request<Incoming>,
    shared: &Shared,
    wire: &Arc<Wire>,
    peer: SocketAddr,
) -> Response {
    let router = match &shared.target {
        Target::Routes(routes) => routes.router(),
        Target::Embedded(handler) => {
            let raw = RawRequest::new(request, Arc::default(), Vec::new(), peer, wire.clone());
            return handler.handle(raw).await;
        }
    };
    let path = request.uri().path();
    if request.method() == Method::OPTIONS && path == "*" {
        return Response::empty(StatusCode::NO_CONTENT);
    }
    match router.find(request.method(), path) {
        Found::Route(route, _) if !route.is_open() => Error::stopping().into_response(),
        Found::Route(route, values) => {
            let raw = RawRequest::new(request, route.template.names(), values, peer, wire.clone());
            route.handler.handle(raw).await
        }
        Found::NotAllowed(allow) if request.method() == Method::OPTIONS => {
            with_allow(Response::empty(StatusCode::NO_CONTENT), &allow)
        }
        Found::NotAllowed(allow) => {
            let text = format!("{} is for {allow}, not for {}", path, request.method());
            let error = Error::new(StatusCode::METHOD_NOT_ALLOWED, text);
            with_allow(error.into_response(), &allow)
        }
        Found::Nowhere => Error::not_found(format!("no route for {path}")).into_response(),
        Found::BadPath => {
            Error::bad_request("the path, once decoded, is not UTF-8").into_response()
        }
    }
}

fn with_allow(mut response: Response, allow: &str) -> Response {
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The body of a response being sent.
pub(super) enum Outgoing {
    Bytes(Option<Bytes>),
    Stream { stream: ByteStream, wire: Arc<Wire> },
}

/// The error of a connection closed by the client.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by the client")]
struct Gone;

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|data| Ok(Frame::data(data)))),
            Self::Stream { stream, wire } => match stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!("a streamed response failed, closing the connection: {error}");
                    Poll::Ready(Some(Err(error)))
                }
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending if wire.poll_gone(cx) => Poll::Ready(Some(Err(Gone.into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_none(),
            Self::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |data| data.len() as u64))
            }
            Self::Stream { .. } => SizeHint::default(),
        }
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
