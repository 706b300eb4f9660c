//! A socket, the channel on it, and the bytes that its peer has not taken yet.

mod scratch;
pub(crate) use scratch::{CHUNK, Scratch, with_scratch};
mod socket;
pub(crate) use socket::Socket;
mod stream;
pub(crate) use stream::{Got, Wire, WireError};
