//! The handshake. Source: RFC 6455, section 4.2.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    super::{error::Error, raw::Upgrade, response::Response},
    settings::Settings,
};

/// Size of the read buffer per socket, in bytes.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// Returns the upgraded connection; `None` if it ended before.
pub(super) async fn switched(
    upgrade: Upgrade,
    settings: &Settings,
) -> Option<WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let connection = match upgrade.connection().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!("no websocket: {error}");
            return None;
        }
    };
    let config = WebSocketConfig::default()
        // Allocated per socket.
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(settings.max_message))
        .max_frame_size(Some(settings.max_message));
    Some(WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await)
}

/// The relevant parts of a handshake request.
pub(super) struct Handshake<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) has_body: bool,
}

/// Creates the response to a handshake. Source: RFC 6455, section 4.2.
pub(super) fn switch(handshake: &Handshake<'_>) -> Result<Response, Error> {
    let accept = accept(handshake)?;
    let mut response = Response::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Validates a handshake and computes `Sec-WebSocket-Accept`.
fn accept(handshake: &Handshake<'_>) -> Result<HeaderValue, Error> {
    let headers = handshake.headers;
    let lists = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    if handshake.method != Method::GET
        || handshake.version < Version::HTTP_11
        || handshake.has_body
        || !lists(header::UPGRADE, "websocket")
        || !lists(header::CONNECTION, "upgrade")
    {
        return Err(Error::bad_request("expected a WebSocket handshake"));
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.map(HeaderValue::as_bytes) != Some(b"13") {
        let text = "the supported WebSocket version is 13";
        return Err(Error::new(StatusCode::UPGRADE_REQUIRED, text)
            .headers([("sec-websocket-version", "13"), ("upgrade", "websocket")])?);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())
        .ok_or_else(|| Error::bad_request("the header Sec-WebSocket-Key is missing or invalid"))
}
