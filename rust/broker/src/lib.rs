#![doc = include_str!("../README.md")]

mod acl;
pub use acl::{Acl, Action, Actions, Pattern, PatternError, Rule, Subject};
mod broker;
pub use broker::{Broker, Forgotten, KeptSession, StartError, Subscription};
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
pub use cluster::Cluster;
mod credential;
pub use credential::Secret;
mod delivering;
mod denials;
pub use denials::{Denial, Denials};
mod groups;
mod hooks;
mod keeper;
mod options;
pub use options::Options;
mod records;
mod restoring;
mod retained;
mod shared;
pub use shared::{Stats, Unwritten};
mod store;
mod sys;
mod topic;
