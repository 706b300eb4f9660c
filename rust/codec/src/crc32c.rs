//! The CRC32C of a header (R34, S8). The arithmetic is the `crc32c` crate's.

use crc32c::crc32c_append;

/// The length of the field, in bytes.
pub(crate) const LEN: usize = 4;

/// Whether the four bytes at `field` hold the checksum of the header, in network order.
pub(crate) fn matches(header: &[u8], field: usize) -> bool {
    header.get(field..field + LEN).is_some_and(|value| *value == checksum(header, field).to_be_bytes())
}

/// The checksum over the whole header with the four bytes at `field` taken as zero, without a copy of it.
pub(crate) fn checksum(header: &[u8], field: usize) -> u32 {
    let before = header.get(..field).unwrap_or_default();
    let behind = header.get(field + LEN..).unwrap_or_default();
    crc32c_append(crc32c_append(crc32c_append(0, before), &[0; LEN]), behind)
}
