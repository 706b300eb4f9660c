//! A broker, spoken to over its port by clients that know its secret, and by some that do not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "clients of threads of their own")]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod access;
mod client;
mod ends;
mod messages;
mod persistence;
mod sessions;
mod strangers;
