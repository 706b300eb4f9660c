//! One session: its way from the first byte to the last, and what others may say to it meanwhile.

mod clock;
mod downward;
mod entering;
mod greeting;
mod handle;
pub(crate) use handle::{Decision, Ending, Handle};
mod login;
mod pace;
mod registration;
mod relay;
mod table;
pub(crate) use table::Table;
mod upward;
mod way;
pub(crate) use way::{Arrived, serve};
