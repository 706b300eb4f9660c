//! Why a packet ends its session.

use core::fmt;

use crate::reader::Wrong;
use crate::{Detail, Reason};

/// Why a packet ends its session, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The row of the table: the code, and the answer to the client.
    pub reason: Reason,
    /// What is wrong, for people.
    pub detail: Detail,
    /// The byte where it went wrong, counted from 0 at the first byte of the packet.
    pub offset: usize,
}

impl Fault {
    pub(crate) const fn malformed(wrong: Wrong) -> Self {
        Self::new(Reason::MalformedPacket, wrong.detail, wrong.offset)
    }

    pub(crate) const fn new(reason: Reason, detail: Detail, offset: usize) -> Self {
        Self { reason, detail, offset }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.reason.code(), self.offset, self.detail)
    }
}

impl core::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_and_where() {
        let fault = Fault::new(Reason::PacketTooLarge, Detail::TooLarge { size: 1001, max: 1000 }, 2);
        assert_eq!(fault.to_string(), "packet-too-large at byte 2: 1001 bytes, at most 1000 are read");
    }
}
