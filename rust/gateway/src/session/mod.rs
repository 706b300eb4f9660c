//! One session: its way from the first byte to the last.

mod clock;
mod downward;
mod entering;
mod greeting;
mod login;
mod pace;
mod registration;
mod relay;
mod upward;
mod way;
pub(crate) use way::{Arrived, serve};
