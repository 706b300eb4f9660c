//! Listeners on loopback with scripted peers. The tests use only public names. There is a file for each step of a connection.

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
