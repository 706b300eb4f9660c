#![doc = include_str!("../README.md")]

mod acl;
pub use acl::{Acl, Action, Actions, Pattern, PatternError, Rule, Subject};
mod broker;
pub use broker::{Broker, Forgotten, StartError, Subscription};
mod credential;
pub use credential::Secret;
mod denials;
pub use denials::{Denial, Denials};
mod groups;
mod hooks;
mod options;
pub use options::Options;
mod retained;
mod shared;
pub use shared::Stats;
mod topic;
