//! The entrypoint `#[websocket_rpc]`, and those for handshakes, connecting and disconnecting
//! sockets.

use std::sync::{Arc, OnceLock};

use super::{server::WebSocketServer, shared::Occasion};
use crate::{
    arguments::Param,
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::Entrypoint,
};

/// Runs a method for requests of WebSocket clients: `#[websocket_rpc]`.
///
/// The first argument is the socket's id, the others are the request's data by name. The result is
/// the reply.
#[derive(Debug, Default)]
pub struct WebSocketRpc(Mount);

/// Runs a method for each handshake, before the connection becomes a WebSocket:
/// `#[entrypoint(WebSocketHandshake::new())]`. An error refuses the handshake.
///
/// Optional parameters `query` and `headers` receive the query of the URL and the HTTP headers with
/// lower-case names, both as `HashMap<String, String>`. The method returns `()`, or a map of
/// context data for all workers of the socket, such as the name of the user. The client receives
/// the status of a [`web::Error`](crate::web::Error), and a 500 for other errors.
///
/// ```
/// use std::collections::HashMap;
///
/// use nameko::{prelude::*, web::{self, WebSocketHandshake}};
///
/// #[derive(Dependencies)]
/// struct Chat {
///     #[dependency(ContextData::new("user"))]
///     user: Option<String>,
/// }
///
/// #[service("chat")]
/// impl Chat {
///     #[entrypoint(WebSocketHandshake::new())]
///     async fn admit(&self, query: HashMap<String, String>) -> Result<HashMap<String, String>> {
///         match query.get("token").map(String::as_str) {
///             Some("secret") => Ok([("user".to_owned(), "ada".to_owned())].into()),
///             _ => Err(web::Error::unauthorized("Bearer", "a token is required").into()),
///         }
///     }
///
///     #[websocket_rpc]
///     async fn who_am_i(&self, _socket_id: String) -> Result<Option<String>> {
///         Ok(self.user.clone())
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct WebSocketHandshake(Mount);

/// Runs a method when a WebSocket client connects: `#[entrypoint(WebSocketConnect::new())]`.
///
/// The first argument is the socket's id. Optional parameters `query` and `headers` receive the
/// query of the URL and the HTTP headers with lower-case names, both as `HashMap<String, String>`.
/// Requests of the socket wait until the method returns. An error closes the socket with the code
/// 1008 and the error's text. To refuse a client in the handshake, use [`WebSocketHandshake`]. The
/// config key `WEBSOCKET_ORIGINS` restricts the origins of pages.
#[derive(Debug, Default)]
pub struct WebSocketConnect(Mount);

/// Runs a method when a WebSocket client disconnects: `#[entrypoint(WebSocketDisconnect::new())]`.
///
/// The first argument is the socket's id. An optional parameter `channels` receives the list of its
/// channels.
#[derive(Debug, Default)]
pub struct WebSocketDisconnect(Mount);

#[derive(Debug, Default)]
struct Mount(OnceLock<Arc<WebSocketServer>>);

impl Mount {
    fn setup(&self, container: &Container, occasion: Occasion, method: MethodHandle) -> Result<()> {
        let server = WebSocketServer::of(container)?;
        server.serve(occasion, method);
        let _ = self.0.set(server);
        Ok(())
    }

    async fn stop(&self) {
        if let Some(server) = self.0.get() {
            server.close().await;
        }
    }
}

/// Checks that the first parameter of a method takes the socket's id.
fn takes_id(method: &MethodHandle, known: Option<&[&str]>) -> Result<()> {
    match method.params().split_first() {
        Some((_, more)) => has_values(more, known),
        None => Err(Error::Declaration(
            "the method is called with the id of the socket: add a parameter for it".to_owned(),
        )),
    }
}

/// Checks that a method has no required parameters other than `known` ones.
fn has_values(params: &[Param], known: Option<&[&str]>) -> Result<()> {
    let unknown = |name: &str| known.is_some_and(|known| !known.contains(&name));
    match params
        .iter()
        .find(|parameter| !parameter.optional && unknown(parameter.name))
    {
        None => Ok(()),
        Some(param) => Err(Error::Declaration(format!(
            "no value for the argument `{}`; available are: {}",
            param.name,
            known.unwrap_or_default().join(", ")
        ))),
    }
}

macro_rules! entrypoint {
    ($entrypoint:ident, $occasion:ident, $label:literal, $check:expr) => {
        impl $entrypoint {
            /// Creates the entrypoint.
            pub fn new() -> Self {
                Self::default()
            }
        }

        impl Entrypoint for $entrypoint {
            fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
                $check(method)
            }

            async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
                self.0.setup(container, Occasion::$occasion, method)
            }

            async fn stop(&self) {
                self.0.stop().await;
            }

            fn describe(&self) -> String {
                $label.to_owned()
            }
        }
    };
}

entrypoint!(WebSocketRpc, Request, "websocket_rpc", |method| takes_id(
    method, None
));
entrypoint!(
    WebSocketHandshake,
    Handshake,
    "websocket handshake",
    |method: &MethodHandle| has_values(method.params(), Some(&["headers", "query"]))
);
entrypoint!(WebSocketConnect, Connect, "websocket connect", |method| {
    takes_id(method, Some(&["headers", "query"]))
});
entrypoint!(
    WebSocketDisconnect,
    Disconnect,
    "websocket disconnect",
    |method| takes_id(method, Some(&["channels"]))
);
