//! Builds version 2 headers byte by byte, valid or not, for tests of the decoder.

/// The signature of version 2.
pub(crate) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header with these bytes 12 and 13 and this block of at most 65535 bytes.
pub(crate) fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
    [&SIGNATURE[..], &[command, family], &len.to_be_bytes(), block].concat()
}
