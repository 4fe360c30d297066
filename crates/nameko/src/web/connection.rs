//! One client's connection: its requests go to their handlers, one after the other.

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
    listener::{Shared, Target},
    raw::RawRequest,
    response::{ByteStream, Content, Response},
    router::Found,
    socket::{Phase, Socket, Wire},
};

/// The most bytes of a request's line and headers.
const MAX_HEAD: usize = 64 << 10;
/// How long a client may go on sending after it was told that nobody reads it.
const LINGER: Duration = Duration::from_secs(2);
/// What a client gets that is too slow with the head of its request.
const TOO_LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
) {
    // Answers are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream, permit);
    let io = TokioIo::new(Socket::new(wire.clone(), shared.limits));
    let service = service_fn(|request| {
        let (shared, wire) = (shared.clone(), wire.clone());
        async move { Ok::<_, Infallible>(answer(request, &shared, wire, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The socket sees to it, and tells a new request from an idle connection.
        .header_read_timeout(None)
        // A client that has sent all it has to say may still wait for the answer.
        .half_close(true)
        .keep_alive(!shared.limits.keep_alive.is_zero())
        .max_buf_size(MAX_HEAD)
        // As they were written before: not every client takes names in any case.
        .title_case_headers(matches!(shared.target, Target::Embedded(_)))
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut closing = shared.closing.subscribe();
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        _ = closing.wait_for(|it| *it) => None,
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
        wire.write_now(TOO_LATE);
    }
    if refused {
        tokio::select! {
            () = wire.linger(LINGER) => {}
            _ = closing.wait_for(|it| *it) => {}
        }
    }
}

/// Answers one request.
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
    // A body is unread until its handler has read it.
    wire.set_unread(!request.body().is_end_stream());
    let response = if names_its_host(request.version(), request.headers()) {
        route(request, shared, &wire, peer).await
    } else {
        let text = "a request of HTTP/1.1 has one header Host, which names a host";
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
    // How a body is framed is not the method's business: a wrong length would be read as the begin of the next answer.
    headers.remove(header::TRANSFER_ENCODING);
    // 204 has none, RFC 9110, section 8.6.
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
    // What is spoken after a switch of protocols keeps its own time.
    if status != StatusCode::SWITCHING_PROTOCOLS {
        wire.set_phase(Phase::Answered);
    }
    http::Response::from_parts(head, body)
}

/// Whether a request says for which host it is, as it must. Source: RFC 9112, section 3.2.
fn names_its_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => {
            host.is_empty()
                || Authority::try_from(host.as_bytes()).is_ok_and(|it| !it.as_str().contains('@'))
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
        Found::Nowhere => Error::not_found(format!("nothing is at {path}")).into_response(),
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

/// The body of a response on its way.
pub(super) enum Outgoing {
    Bytes(Option<Bytes>),
    Stream { stream: ByteStream, wire: Arc<Wire> },
}

/// The client has closed the connection.
#[derive(Debug, thiserror::Error)]
#[error("the client has gone")]
struct Gone;

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Stream { stream, wire } => match stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!("a streamed response failed, its connection is cut: {error}");
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
                SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64))
            }
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_once() {
        let names = |version, hosts: &[&'static str]| {
            let hosts = hosts
                .iter()
                .map(|host| (header::HOST, HeaderValue::from_static(host)));
            names_its_host(version, &hosts.collect())
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
