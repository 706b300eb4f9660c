//! A gateway with a listener, scripted clients in front of it and scripted servers behind it, through the public names alone.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod answers;
mod channel;
mod connecting;
mod ending;
mod packets;
mod random;
mod rig;
mod secure;
mod storm;
mod stream;
mod tls;
mod unix;
mod way;
mod websocket;
