//! A chat in the browser: `cargo run --bin chat -- run`, then open <http://localhost:8000> in two
//! windows.
//!
//! The service also serves the page.

use std::collections::HashMap;

use nameko::{
    prelude::*,
    web::{Html, WebSocketConnect, WebSocketDisconnect, WebSocketHub, WebSocketHubProvider},
};
use serde_json::json;

#[derive(Dependencies)]
struct Chat {
    #[dependency(WebSocketHubProvider::new())]
    hub: WebSocketHub,
}

#[service("chat")]
impl Chat {
    #[http(GET, "/")]
    async fn page(&self) -> Result<Html<&'static str>> {
        Ok(Html(include_str!("chat.html")))
    }

    /// The page connects to `/ws?room=...`. A socket without a room is rejected.
    #[entrypoint(WebSocketConnect::new())]
    async fn enter(&self, socket_id: String, query: HashMap<String, String>) -> Result<()> {
        let room = query.get("room").ok_or("the room is missing")?;
        self.hub.subscribe(&socket_id, room)?;
        self.hub.broadcast(room, "entered", &socket_id)?;
        Ok(())
    }

    #[websocket_rpc]
    async fn say(&self, socket_id: String, text: String) -> Result<usize> {
        let mut receivers = 0;
        for room in self.hub.get_subscriptions(&socket_id) {
            let said = json!({"who": socket_id, "text": text});
            receivers += self.hub.broadcast(&room, "said", &said)?;
        }
        Ok(receivers)
    }

    #[entrypoint(WebSocketDisconnect::new())]
    async fn leave(&self, socket_id: String, channels: Vec<String>) -> Result<()> {
        for room in &channels {
            self.hub.broadcast(room, "left", &socket_id)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Chat])
}
