//! Who is logging in or has a session, and what others may say to it.

mod handle;
pub(crate) use handle::{Decision, Ending, Handle};
mod table;
pub(crate) use table::{Entry, Table};
