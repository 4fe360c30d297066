//! The entrypoint `#[websocket_rpc]`, and those that run when a socket comes or goes.

use std::sync::{Arc, OnceLock};

use super::server::{Occasion, WebSocketServer};
use crate::{
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::Entrypoint,
};

/// Runs a method for the requests of WebSocket clients: `#[websocket_rpc]`.
///
/// The method gets the socket's id first, then the request's data by name. What it returns is the reply.
#[derive(Debug, Default)]
pub struct WebSocketRpc(Mount);

/// Runs a method when a WebSocket client has connected: `#[entrypoint(WebSocketConnect::new())]`.
///
/// The method gets the socket's id first. A parameter called `query` gets the query of the URL that the client connected to, one
/// called `headers` its HTTP headers, both as a map of texts (`HashMap<String, String>`); header names are lower case. The
/// socket's requests wait until the method has ended. An error closes the socket, with code 1008 and the error's text: this
/// is where a token is checked. Whose pages may connect at all says the config key `WEBSOCKET_ORIGINS`.
#[derive(Debug, Default)]
pub struct WebSocketConnect(Mount);

/// Runs a method when a WebSocket client is gone: `#[entrypoint(WebSocketDisconnect::new())]`.
///
/// The method gets the id that the socket had. A parameter called `channels` gets the list of what it listened to.
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

/// A socket's id is the first argument of every method.
fn takes_id(method: &MethodHandle, known: Option<&[&str]>) -> Result<()> {
    let Some((_, more)) = method.params().split_first() else {
        return Err(Error::Declaration(
            "the method is called with the id of the socket: add a parameter for it".to_owned(),
        ));
    };
    let unknown = |name: &str| known.is_some_and(|it| !it.contains(&name));
    match more.iter().find(|it| !it.optional && unknown(it.name)) {
        None => Ok(()),
        Some(param) => Err(Error::Declaration(format!(
            "nothing is known for the argument `{}`; there are: {}",
            param.name,
            known.unwrap_or_default().join(", ")
        ))),
    }
}

macro_rules! entrypoint {
    ($entrypoint:ident, $occasion:ident, $label:literal, $known:expr) => {
        impl $entrypoint {
            /// The entrypoint of one method.
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
