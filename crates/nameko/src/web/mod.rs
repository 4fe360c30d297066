//! HTTP entrypoints, `#[http(GET, "/orders/{id}")]`, and the web server.
//!
//! [`FromRequest`] lists argument types, [`IntoResponse`] return types; [`Error`] has an HTTP
//! status. See the guide, [`guide::http`](crate::guide::http).
//!
//! ```
//! use nameko::{prelude::*, web::{self, Json}};
//!
//! #[derive(Dependencies)]
//! struct Stock;
//!
//! #[service("stock")]
//! impl Stock {
//!     #[http(GET, "/items/{id}")]
//!     async fn count(&self, id: u64, reserved: Option<bool>) -> Result<Json<u64>> {
//!         match (id, reserved) {
//!             (17, Some(true)) => Ok(Json(1)),
//!             (17, _) => Ok(Json(3)),
//!             _ => Err(web::Error::not_found(format!("no item {id}")).into()),
//!         }
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! assert_eq!(Stock.count(17, None).await?, Json(3));
//! # Ok(()) }
//! ```

mod address;
mod body_reader;
mod body_stream;
mod connection;
mod dispatch;
#[doc(hidden)]
pub mod embed;
mod entrypoint;
mod error;
mod error_format;
mod error_response;
mod extract;
pub(crate) mod extraction;
mod form;
mod gate;
mod handler;
#[cfg(feature = "testing")]
mod hook;
mod json;
mod layers;
mod listener;
#[cfg(feature = "multipart")]
mod multipart;
pub(crate) mod path_check;
mod raw;
mod request;
mod request_body;
mod response;
mod response_body;
mod router;
mod server;
mod settings;
mod socket;
mod target;
#[cfg(feature = "websocket")]
mod websocket;

use std::net::SocketAddr;

pub use body_stream::BodyStream;
pub use bytes::Bytes;
pub use entrypoint::Http;
pub use error::Error;
pub use error_format::{ErrorFormat, Failure, ProblemDetails};
pub use extract::{AsyncFromRequest, Body, Extension, Form, FromRequest, Headers, Query};
pub use handler::Handler;
pub use http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
pub use json::Json;
pub use layers::{HttpLayer, HttpService, Peer};
#[cfg(feature = "multipart")]
pub use multipart::{Multipart, Part};
pub use raw::{RawRequest, Upgrade};
pub use request::Request;
pub use request_body::{BoxError, RequestBody};
pub use response::{Html, IntoHeaders, IntoResponse, IntoStatus, Response};
pub use response_body::ResponseBody;
pub use server::WebServer;
#[cfg(feature = "websocket")]
pub use websocket::{
    WebSocketConnect, WebSocketDisconnect, WebSocketHandshake, WebSocketHub, WebSocketHubProvider,
    WebSocketRpc,
};

use crate::Container;

/// Returns the address of the web server of a started container, with the actual port if port 0 is
/// configured. `None` if the container serves no HTTP or is not started.
pub fn address(container: &Container) -> Option<SocketAddr> {
    WebServer::of(container).ok()?.address()
}
