//! WebSocket: RPC methods and events over one connection.
//!
//! A client connects to `/ws`, receives its id, sends requests, and receives replies and the events
//! of its channels. The messages are those of Nameko, see the guide.

mod admission;
mod entrypoint;
mod frames;
mod handshake;
mod hub;
mod hub_provider;
mod inbox;
mod origins;
mod outbox;
pub(super) mod raw_socket;
mod server;
mod session;
mod settings;
mod shared;
mod socket;
mod transport;

pub use entrypoint::{WebSocketConnect, WebSocketDisconnect, WebSocketHandshake, WebSocketRpc};
pub use hub::WebSocketHub;
pub use hub_provider::WebSocketHubProvider;
