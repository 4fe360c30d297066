//! HTTP: `#[http(GET, "/orders/{id}")]`, and the server behind it.

mod address;
mod connection;
mod entrypoint;
mod error;
mod extract;
mod form;
mod listener;
mod raw;
mod request;
mod response;
mod router;
mod server;
mod settings;
mod socket;
mod websocket;

use std::net::SocketAddr;

pub use bytes::Bytes;
pub use entrypoint::Http;
pub use error::Error;
pub(crate) use error::ErrorResponse;
pub use extract::{Body, Form, FromRequest, Headers, Json, Query};
pub use http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
pub use raw::{RawRequest, Upgrade};
pub use request::Request;
pub use response::{Html, IntoHeaders, IntoResponse, IntoStatus, Response};
pub use server::{Handler, WebServer};
pub use websocket::{
    WebSocketConnect, WebSocketDisconnect, WebSocketHub, WebSocketHubProvider, WebSocketRpc,
};

use crate::Container;

/// Where the web server of a started `container` listens: with the port that was taken, where port 0 is configured.
/// `None` when the container serves no HTTP, or is not started.
pub fn address(container: &Container) -> Option<SocketAddr> {
    WebServer::of(container).ok()?.address()
}
