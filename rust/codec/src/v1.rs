//! The line of version 1 (R9, R10, R15-R19).
/// x
pub(crate) const MIN_LEN: usize = 15;
