//! The fixed part and the address block of version 2 (R20-R30).
/// x
pub(crate) const MIN_LEN: usize = 16;
