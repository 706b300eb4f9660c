//! WebSocket (RFC 6455) towards clients, as MQTT is carried in it: binary messages, no compression, and no ping of ours,
//! for MQTT has its own.

mod forwarded;
mod frames;
mod handshake;
mod header;
mod options;
pub use options::{ForwardedOptions, WebSocketOptions};
mod request;
mod server;
pub use server::WebSocketServer;
