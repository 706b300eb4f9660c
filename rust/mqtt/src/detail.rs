//! What is wrong with a packet, in words and numbers.

use core::fmt;

use crate::{PacketType, Sender};

/// What is wrong with a packet. The text is for people, lower case and without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// A second CONNECT (MQTT-3.1.0-2).
    SecondConnect,
    /// A packet of a type that this side does not send, or not in this version.
    NotForSender {
        /// The type, 0 to 15. 0 is no type.
        packet_type: u8,
        /// Who has sent it.
        sender: Sender,
    },
    /// The flags are not those of the type (MQTT-2.2.2-2).
    Flags {
        /// The type.
        packet_type: PacketType,
        /// The low four bits of the first byte.
        flags: u8,
    },
    /// The remaining length does not end with its fourth byte (MQTT 3.1.1, section 2.2.3).
    LengthTooLong,
    /// The remaining length takes more bytes than its value needs (MQTT5-1.5.5-1).
    LengthNotMinimal,
    /// The packet is larger than the receiver wants.
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The largest size in bytes.
        max: u32,
    },
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SecondConnect => f.write_str("a CONNECT in an open session"),
            Self::NotForSender { packet_type, sender } => {
                write!(f, "packet type {packet_type} is not for {sender} to send")
            }
            Self::Flags { packet_type, flags } => {
                write!(f, "packet type {} with flags {flags:#x}", packet_type as u8)
            }
            Self::LengthTooLong => f.write_str("the remaining length has more than 4 bytes"),
            Self::LengthNotMinimal => f.write_str("the remaining length has more bytes than it needs"),
            Self::TooLarge { size, max } => write!(f, "{size} bytes, at most {max} are read"),
        }
    }
}
