//! A client connection, which dispatches its requests in sequence.

use std::{
    convert::Infallible,
    error::Error as StdError,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, StatusCode, header, header::HeaderValue};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use super::{
    dispatch::{self, Exchange},
    raw::RawRequest,
    request_body::RequestBody,
    response_body::ResponseBody,
    socket::{Phase, Socket, Wire},
    target::{PortPhase, Shared, Target},
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
    let socket = Socket::new(stream, shared.limits, permit);
    let wire = socket.wire().clone();
    let io = TokioIo::new(socket);
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
    let mut phase = shared.phase.subscribe();
    let mut closing = phase.clone();
    let ended = loop {
        let now = *phase.borrow_and_update();
        match now {
            PortPhase::Serving => {}
            PortPhase::Draining => wire.close_after_response(),
            PortPhase::Closing if matches!(wire.phase(), Phase::New | Phase::Idle) => return,
            PortPhase::Closing => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            // Cannot fail: `shared` holds the sender.
            _ = phase.changed() => {}
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
            // Boxed, since it has a buffer.
            () = Box::pin(wire.linger(LINGER_TIMEOUT)) => {}
            _ = closing.wait_for(|phase| *phase == PortPhase::Closing) => {}
        }
    }
}

/// Responds to one request.
async fn answer(
    request: http::Request<Incoming>,
    shared: &Shared,
    wire: Arc<Wire>,
    peer: SocketAddr,
) -> http::Response<ResponseBody> {
    wire.set_phase(Phase::Busy);
    let begun = Instant::now();
    let log = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    // A body counts as unread until the handler has read it.
    wire.set_unread(!request.body().is_end_stream());
    let request = request.map(RequestBody::from);
    let mut response = match &shared.target {
        Target::Routes(routes) => {
            let table = routes.table();
            let stack = table.stack.clone();
            let wire = wire.clone();
            let exchange = Exchange { table, wire, peer };
            match stack {
                None => dispatch::dispatch(request, &exchange).await,
                Some(stack) => stack.pass(request, exchange).await,
            }
        }
        Target::Embedded(handler) => {
            let to_head = request.method() == Method::HEAD;
            let response = match dispatch::refuse_host(&request) {
                Some(refusal) => refusal,
                None => {
                    let raw =
                        RawRequest::new(request, Arc::default(), Vec::new(), peer, wire.clone());
                    handler.handle(raw).await
                }
            };
            dispatch::finish(response, to_head, &wire)
        }
    };
    let status = response.status();
    if let Some((method, path)) = log {
        tracing::debug!(%peer, "{method} {path}: {status} in {:?}", begun.elapsed());
    }
    let headers = response.headers_mut();
    headers.remove(header::TRANSFER_ENCODING);
    // The protocol after an upgrade has its own header, and its own timeouts.
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if wire.is_last() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        wire.set_phase(Phase::Answered);
    }
    response
}
