//! Why a packet cannot be sent.

use core::fmt;

use crate::{Detail, Field};

/// Why a packet cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary data is longer than the 65535 bytes that the length in front of it can express.
    TooLong {
        /// Which one.
        field: Field,
        /// Its length in bytes.
        len: usize,
    },
    /// The packet is longer than the 268,435,455 bytes that a remaining length can express.
    PacketTooLong {
        /// The length behind the fixed header, in bytes.
        len: usize,
    },
    /// The receiver would refuse the packet.
    Invalid(Detail),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { field, len } => write!(f, "{field} has {len} bytes, where at most 65535 fit"),
            Self::PacketTooLong { len } => write!(f, "a packet of {len} bytes, where at most 268435455 fit"),
            Self::Invalid(detail) => detail.fmt(f),
        }
    }
}

impl core::error::Error for EncodeError {}
