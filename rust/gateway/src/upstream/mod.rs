//! The servers behind the gateway: which there are, which gets the next client, and how they are reached.

mod balance;
mod check;
pub(crate) use check::keep_checked;
mod connect;
pub(crate) use connect::{connect, no_answer};
mod header_out;
pub(crate) use header_out::of_client as header_of_client;
mod health;
pub(crate) mod link;
mod pool;
pub(crate) use pool::Pool;
mod resolve;
pub(crate) use resolve::{keep_resolved, system};
mod target;
pub use target::ServerName;
pub(crate) use target::{Place, Target};

/// A server has gone down, or up again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerChange {
    /// Which.
    pub server: ServerName,
    /// What it is now.
    pub is_up: bool,
    /// What was wrong at the last check; empty for one that is up.
    pub detail: String,
}
