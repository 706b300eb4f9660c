//! The fixed header: the first two to five bytes of every packet.

use core::fmt;

use crate::Detail;

/// The types of packets. No other is valid (MQTT 3.1.1, section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// A client logs in.
    Connect = 1,
    /// The answer to CONNECT.
    Connack = 2,
    /// A message.
    Publish = 3,
    /// The answer to a PUBLISH of QoS 1.
    Puback = 4,
    /// The answer to a PUBLISH of QoS 2.
    Pubrec = 5,
    /// The answer to PUBREC.
    Pubrel = 6,
    /// The answer to PUBREL.
    Pubcomp = 7,
    /// A client subscribes to topics.
    Subscribe = 8,
    /// The answer to SUBSCRIBE.
    Suback = 9,
    /// A client ends subscriptions.
    Unsubscribe = 10,
    /// The answer to UNSUBSCRIBE.
    Unsuback = 11,
    /// A client asks for a sign of life.
    Pingreq = 12,
    /// The answer to PINGREQ.
    Pingresp = 13,
    /// The last packet of a session.
    Disconnect = 14,
    /// A step of an authentication. Only MQTT 5 has it.
    Auth = 15,
}

impl PacketType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type in the first byte of a packet; `None` for 0, which is none.
    #[inline]
    #[must_use]
    pub const fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// The name in MQTT: `CONNACK`.
impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// What the first bytes of a packet say: its type, its flags and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FixedHeader {
    pub(crate) packet_type: PacketType,
    pub(crate) flags: u8,
    /// The length of the fixed header itself, 2 to 5.
    pub(crate) len: u8,
    pub(crate) remaining: u32,
}

impl FixedHeader {
    /// The type of the packet.
    #[inline]
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// The low four bits of the first byte. Of a PUBLISH they are DUP, QoS and RETAIN.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> u8 {
        self.flags
    }

    /// The remaining length: how many bytes follow the fixed header.
    #[inline]
    #[must_use]
    pub const fn remaining(self) -> u32 {
        self.remaining
    }

    /// The size of the whole packet in bytes, with its fixed header.
    #[inline]
    #[must_use]
    pub const fn size(self) -> u32 {
        self.len as u32 + self.remaining
    }
}

/// A remaining length, or the length of properties: where it stands, at most four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) value: u32,
    /// How many bytes it takes, 1 to 4.
    pub(crate) bytes: u8,
}

impl Length {
    /// Reads the length at the start of `data`. Returns `None` while bytes of it are missing.
    ///
    /// The error is [`Detail::LengthTooLong`], or, where only the shortest form is `minimal` enough,
    /// [`Detail::LengthNotMinimal`].
    #[inline]
    pub(crate) fn read(data: &[u8], minimal: bool) -> Result<Option<Self>, Detail> {
        let mut value = 0;
        for (&digit, bytes) in data.iter().zip(1..=Self::MAX_BYTES) {
            value |= u32::from(digit & 0x7f) << (7 * (bytes - 1));
            if digit & 0x80 == 0 {
                let padded = minimal && digit == 0 && bytes > 1;
                return if padded { Err(Detail::LengthNotMinimal) } else { Ok(Some(Self { value, bytes })) };
            }
        }
        if data.len() < usize::from(Self::MAX_BYTES) { Ok(None) } else { Err(Detail::LengthTooLong) }
    }

    const MAX_BYTES: u8 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_type_is_in_the_high_bits_of_the_first_byte() {
        for (packet_type, number) in PacketType::ALL.into_iter().zip(1..) {
            assert_eq!(packet_type as u8, number);
            assert_eq!(packet_type.to_string(), format!("{packet_type:?}").to_uppercase());
            for flags in 0..16 {
                assert_eq!(PacketType::of(number << 4 | flags), Some(packet_type));
            }
        }
        assert_eq!(PacketType::of(0x0f), None);
    }

    #[test]
    fn a_length_has_seven_bits_in_each_byte() {
        // MQTT 3.1.1, table 2.4
        let table: [(&[u8], u32); 8] = [
            (b"\x00", 0),
            (b"\x7f", 127),
            (b"\x80\x01", 128),
            (b"\xff\x7f", 16_383),
            (b"\x80\x80\x01", 16_384),
            (b"\xff\xff\x7f", 2_097_151),
            (b"\x80\x80\x80\x01", 2_097_152),
            (b"\xff\xff\xff\x7f", 268_435_455),
        ];
        for (data, value) in table {
            let bytes = u8::try_from(data.len()).unwrap();
            for minimal in [false, true] {
                let followed = [data, b"\x00\xff"].concat();
                assert_eq!(Length::read(data, minimal), Ok(Some(Length { value, bytes })));
                assert_eq!(Length::read(&followed, minimal), Ok(Some(Length { value, bytes })));
                for have in 0..data.len() {
                    assert_eq!(Length::read(&data[..have], minimal), Ok(None));
                }
            }
        }
    }

    #[test]
    fn a_length_with_needless_bytes_is_refused_where_only_the_shortest_counts() {
        for data in [&b"\x80\x00"[..], b"\xff\x80\x00", b"\x81\x80\x80\x00"] {
            assert_eq!(Length::read(data, true), Err(Detail::LengthNotMinimal));
            assert!(matches!(Length::read(data, false), Ok(Some(_))));
        }
        for data in [b"\x80\x80\x80\x80", b"\xff\xff\xff\xff"] {
            assert_eq!(Length::read(data, false), Err(Detail::LengthTooLong));
        }
    }
}
