//! Listeners on loopback and scripted peers, through the public names alone. A file per step of a connection's way.

#![expect(clippy::disallowed_methods, reason = "a test's own threads may block")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod drain;
mod late;
mod life;
mod limits;
mod pair;
mod queue;
mod unix;
mod way;
