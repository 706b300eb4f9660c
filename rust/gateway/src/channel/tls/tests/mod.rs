//! The two channels, against each other and against rustls' buffered client, without a socket.

mod client;
mod files;
mod options;
mod peers;
mod server;
mod session;
