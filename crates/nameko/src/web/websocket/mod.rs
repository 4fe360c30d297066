//! WebSocket: methods that browsers call over one connection, and events that they are sent.
//!
//! A client connects to `/ws` and is told its id, sends requests and gets replies, and is sent the events of the channels that
//! the service lets it listen to. Messages are as in Nameko, see the guide.

mod entrypoint;
mod frames;
mod hub;
mod inbox;
mod origins;
mod outbox;
pub(super) mod raw_socket;
mod server;
mod session;
mod socket;
mod transport;

pub use entrypoint::{WebSocketConnect, WebSocketDisconnect, WebSocketRpc};
pub use hub::{WebSocketHub, WebSocketHubProvider};
