//! The entrypoint `#[websocket_rpc]`, and those for connecting and disconnecting sockets.

use std::sync::{Arc, OnceLock};

use super::{server::WebSocketServer, shared::Occasion};
use crate::{
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

/// Runs a method when a WebSocket client connects: `#[entrypoint(WebSocketConnect::new())]`.
///
/// The first argument is the socket's id. Optional parameters `query` and `headers` receive the
/// query of the URL and the HTTP headers with lower-case names, both as `HashMap<String, String>`.
/// Requests of the socket wait until the method returns. An error closes the socket with the code
/// 1008 and the error's text, for example to reject a token. The config key `WEBSOCKET_ORIGINS`
/// restricts the origins of pages.
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
    let Some((_, more)) = method.params().split_first() else {
        return Err(Error::Declaration(
            "the method is called with the id of the socket: add a parameter for it".to_owned(),
        ));
    };
    let unknown = |name: &str| known.is_some_and(|known| !known.contains(&name));
    match more
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
    ($entrypoint:ident, $occasion:ident, $label:literal, $known:expr) => {
        impl $entrypoint {
            /// Creates the entrypoint.
            pub fn new() -> Self {
                Self::default()
            }
        }

        impl Entrypoint for $entrypoint {
            fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
                takes_id(method, $known)
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

entrypoint!(WebSocketRpc, Request, "websocket_rpc", None);
entrypoint!(
    WebSocketConnect,
    Connect,
    "websocket connect",
    Some(&["headers", "query"])
);
entrypoint!(
    WebSocketDisconnect,
    Disconnect,
    "websocket disconnect",
    Some(&["channels"])
);
