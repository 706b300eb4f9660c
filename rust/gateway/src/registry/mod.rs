//! The registry of logins and sessions, and the messages that others may send them.

mod handle;
pub(crate) use handle::{Decision, Ending, Handle};
mod table;
pub(crate) use table::{Entry, Table};
