//! The servers behind the gateway: which there are, which gets the next client, and how they are reached.

mod balance;
mod check;
pub(crate) use check::keep_checked;
mod connect;
pub(crate) use connect::{connect, no_answer};
mod header_out;
pub(crate) use header_out::{of_client as header_of_client, password_of_client};
mod health;
pub(crate) mod link;
mod pool;
pub(crate) use pool::{Pool, listed};
mod resolve;
pub(crate) use resolve::{Lookup, keep_resolved, system};
mod target;
pub(crate) use target::{Place, Target};
