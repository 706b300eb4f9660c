//! `ProxyListener` on a tokio runtime with scripted peers. The tests use only public names.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod end;
mod faces;
mod late;
mod pair;
mod stream;
mod tasks;
mod telling;
mod way;
