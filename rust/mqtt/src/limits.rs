//! Which packets one side may send: their types, their flags and their size, all known from the fixed header.

use core::fmt;

use crate::fixed_header::Length;
use crate::reader::{Reader, Wrong};
use crate::{Detail, Fault, Field, FixedHeader, PacketType, Reason, Version};

/// One of the two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The side that has sent the CONNECT.
    Client,
    /// The side that answers.
    Server,
}

/// The plural, for sentences such as `packet type 9 is not for clients to send`.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "clients",
            Self::Server => "servers",
        })
    }
}

/// What one side may send after the CONNECT, as far as a fixed header tells.
///
/// ```
/// use proxyproto_mqtt::{Limits, PacketType, Sender, Version};
///
/// let limits = Limits::new(Sender::Server, Version::Mqtt5, 65536);
/// let header = limits.fixed_header(b"\x20\x03\x00\x00\x00")?.unwrap();
/// assert_eq!((header.packet_type(), header.size()), (PacketType::Connack, 5));
/// # Ok::<_, proxyproto_mqtt::Fault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    sender: Sender,
    version: Version,
    max_packet_size: u32,
}

impl Limits {
    /// Limits for the packets of one side, in a session of `version`. A packet of more than `max_packet_size`
    /// bytes, with its fixed header, is refused; no packet of MQTT has more than [`u32::MAX`].
    #[must_use]
    pub const fn new(sender: Sender, version: Version, max_packet_size: u32) -> Self {
        Self { sender, version, max_packet_size }
    }

    /// Reads and judges the fixed header at the start of `data`. Returns `None` while bytes of it are
    /// missing.
    ///
    /// A CONNECT is always refused, because it has been read before. A CONNACK is taken from a server,
    /// although a session has only one.
    ///
    /// # Errors
    ///
    /// At the first wrong byte: `malformed-packet`, `second-connect` or `packet-too-large`.
    #[inline]
    pub fn fixed_header(self, data: &[u8]) -> Result<Option<FixedHeader>, Fault> {
        let Some((&first, rest)) = data.split_first() else { return Ok(None) };
        let packet_type = match PacketType::of(first) {
            Some(packet_type) if self.may_send(first) => packet_type,
            _ => return Err(self.wrong_first_byte(first)),
        };
        let length = match Length::read(rest, self.version == Version::Mqtt5) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(detail) => return Err(wrong_length(detail, rest)),
        };
        let header =
            FixedHeader { packet_type, flags: first & 0x0f, len: 1 + length.bytes, remaining: length.value };
        if header.size() > self.max_packet_size {
            return Err(self.too_large(header));
        }
        Ok(Some(header))
    }

    /// Splits a packet whose length takes one byte off the start of `data`. Returns `None` for any other
    /// packet, and for what is not whole or not allowed, all of which `fixed_header` judges.
    ///
    /// Most packets are so short. With this a scan takes 2.5 ns for a packet of 64 bytes, without it 8.4.
    #[inline]
    pub(crate) fn short_packet(self, data: &[u8]) -> Option<(FixedHeader, &[u8])> {
        let &[first, remaining @ ..0x80, ref rest @ ..] = data else { return None };
        let packet_type = PacketType::of(first)?;
        let header =
            FixedHeader { packet_type, flags: first & 0x0f, len: 2, remaining: u32::from(remaining) };
        let next = rest.get(usize::from(remaining)..)?;
        (self.may_send(first) && header.size() <= self.max_packet_size).then_some((header, next))
    }

    /// A reader behind the fixed header of one packet, of which all bytes are here and nothing else.
    pub(crate) fn body(self, packet: &[u8], expected: PacketType) -> Result<Reader<'_>, Fault> {
        let cut = |field| Fault::malformed(Wrong::new(Detail::EndsInside(field), packet.len()));
        let header = self.fixed_header(packet)?.ok_or(cut(Field::FixedHeader))?;
        let packet_type = header.packet_type();
        if packet_type != expected {
            return Err(Fault::malformed(Wrong::new(Detail::WrongType { expected, packet_type }, 0)));
        }
        let whole = packet.get(..header.size() as usize).ok_or(cut(Field::Body))?;
        Reader::new(packet, whole.len()).finish().map_err(Fault::malformed)?;
        Ok(Reader::new(whole, usize::from(header.len)))
    }

    #[inline]
    fn may_send(self, first: u8) -> bool {
        MAY_SEND.get(usize::from(first)).is_some_and(|sides| sides & side(self.sender, self.version) != 0)
    }

    #[cold]
    fn wrong_first_byte(self, first: u8) -> Fault {
        let low = first & 0x0f;
        let (reason, detail) = match PacketType::of(first) {
            Some(PacketType::Connect) if self.sender == Sender::Client && low == 0 => {
                (Reason::SecondConnect, Detail::SecondConnect)
            }
            Some(packet_type) if flags(packet_type, self.sender, self.version).is_some() => {
                (Reason::MalformedPacket, Detail::Flags { packet_type, flags: low })
            }
            _ => (
                Reason::MalformedPacket,
                Detail::NotForSender { packet_type: first >> 4, sender: self.sender },
            ),
        };
        Fault::new(reason, detail, 0)
    }

    #[cold]
    fn too_large(self, header: FixedHeader) -> Fault {
        let detail = Detail::TooLarge { size: header.size(), max: self.max_packet_size };
        Fault::new(Reason::PacketTooLarge, detail, usize::from(header.len) - 1)
    }
}

/// The offset is that of the last byte of the length.
#[cold]
fn wrong_length(detail: Detail, length: &[u8]) -> Fault {
    let ends_at = length.iter().take(4).position(|digit| digit & 0x80 == 0).unwrap_or(3);
    Fault::new(Reason::MalformedPacket, detail, 1 + ends_at)
}

/// The flags that packets of a type have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    Any,
    Only(u8),
}

/// Which flags a packet must have (MQTT-2.2.2-1), or `None` if this side sends no such packet.
const fn flags(packet_type: PacketType, sender: Sender, version: Version) -> Option<Flags> {
    let (by_client, by_server, flags) = match packet_type {
        PacketType::Connect => return None,
        PacketType::Publish => (true, true, Flags::Any),
        PacketType::Puback | PacketType::Pubrec | PacketType::Pubcomp => (true, true, Flags::Only(0)),
        PacketType::Pubrel => (true, true, Flags::Only(2)),
        PacketType::Subscribe | PacketType::Unsubscribe => (true, false, Flags::Only(2)),
        PacketType::Pingreq => (true, false, Flags::Only(0)),
        PacketType::Connack | PacketType::Suback | PacketType::Unsuback | PacketType::Pingresp => {
            (false, true, Flags::Only(0))
        }
        PacketType::Disconnect => (true, matches!(version, Version::Mqtt5), Flags::Only(0)),
        PacketType::Auth => {
            let is_known = matches!(version, Version::Mqtt5);
            (is_known, is_known, Flags::Only(0))
        }
    };
    match (sender, version) {
        (Sender::Client, _) if !by_client => None,
        (Sender::Server, _) if !by_server => None,
        // MQTT 3.1 sets DUP in a PUBREL or a SUBSCRIBE that is sent again, and says of the other flags only
        // that they are not used.
        (_, Version::Mqtt31) => Some(Flags::Any),
        _ => Some(flags),
    }
}

/// For each first byte, which sides may send it: one bit for each sender in each version.
///
/// A look-up costs a relay less for each packet than to ask for the type, the sender and the version.
static MAY_SEND: [u8; 256] = {
    let mut table = [0; 256];
    let mut first = 0;
    while first < table.len() {
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 256")]
        #[expect(clippy::indexing_slicing, reason = "the compiler does it, and stops if it is wrong")]
        {
            table[first] = sides(first as u8);
        }
        first += 1;
    }
    table
};

const fn sides(first: u8) -> u8 {
    let Some(packet_type) = PacketType::of(first) else { return 0 };
    let mut sides = 0;
    let mut index = 0;
    while index < 6 {
        let sender = if index < 3 { Sender::Client } else { Sender::Server };
        let version = match index % 3 {
            0 => Version::Mqtt31,
            1 => Version::Mqtt311,
            _ => Version::Mqtt5,
        };
        let may = match flags(packet_type, sender, version) {
            Some(Flags::Any) => true,
            Some(Flags::Only(flags)) => first & 0x0f == flags,
            None => false,
        };
        if may {
            sides |= side(sender, version);
        }
        index += 1;
    }
    sides
}

const fn side(sender: Sender, version: Version) -> u8 {
    1 << (sender as u8 * 3 + version as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(limits: Limits, data: &[u8]) -> Result<Option<u32>, (&'static str, String, usize)> {
        let header = limits.fixed_header(data);
        header
            .map(|header| header.map(FixedHeader::size))
            .map_err(|fault| (fault.reason.code(), fault.detail.to_string(), fault.offset))
    }

    #[test]
    fn each_side_sends_its_packets() {
        let client = [0x40, 0x50, 0x62, 0x70, 0x82, 0xa2, 0xc0, 0xe0];
        let server = [0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0];
        for first in 0..=0xff {
            for version in [Version::Mqtt311, Version::Mqtt5] {
                let only_5 = version == Version::Mqtt5 && first == 0xf0;
                for (sender, may_send) in [
                    (Sender::Client, client.contains(&first) || only_5),
                    (
                        Sender::Server,
                        server.contains(&first) || only_5 || version == Version::Mqtt5 && first == 0xe0,
                    ),
                ] {
                    let header = Limits::new(sender, version, u32::MAX).fixed_header(&[first]);
                    assert_eq!(
                        header.is_ok(),
                        may_send || first >> 4 == 3,
                        "{first:02x} from {sender}, {version}"
                    );
                }
            }
        }
    }

    #[test]
    fn flags_mean_nothing_in_3_1() {
        let limits = Limits::new(Sender::Client, Version::Mqtt31, u32::MAX);
        for first in [0x8a, 0x80, 0xaa, 0x6a, 0x41, 0xc8, 0xef] {
            assert_eq!(judged(limits, &[first, 0]), Ok(Some(2)), "{first:02x}");
        }
        for first in [0x10, 0x20, 0x90, 0xf0, 0x00] {
            assert!(judged(limits, &[first]).is_err(), "{first:02x}");
        }
    }

    #[test]
    fn the_first_wrong_byte_is_refused() {
        let of = |sender, version| Limits::new(sender, version, 1000);
        let client = of(Sender::Client, Version::Mqtt311);
        let table: [(Limits, &[u8], &str, &str, usize); 12] = [
            (client, b"\x10", "second-connect", "a CONNECT in an open session", 0),
            (client, b"\x11", "malformed-packet", "packet type 1 is not for clients to send", 0),
            (client, b"\x00", "malformed-packet", "packet type 0 is not for clients to send", 0),
            (client, b"\x90", "malformed-packet", "packet type 9 is not for clients to send", 0),
            (client, b"\xf0", "malformed-packet", "packet type 15 is not for clients to send", 0),
            (client, b"\x60", "malformed-packet", "packet type 6 with flags 0x0", 0),
            (
                of(Sender::Server, Version::Mqtt5),
                b"\x10",
                "malformed-packet",
                "packet type 1 is not for servers to send",
                0,
            ),
            (
                of(Sender::Server, Version::Mqtt311),
                b"\xe0",
                "malformed-packet",
                "packet type 14 is not for servers to send",
                0,
            ),
            (
                client,
                b"\x30\x80\x80\x80\x80",
                "malformed-packet",
                "the remaining length has more than 4 bytes",
                4,
            ),
            (
                of(Sender::Client, Version::Mqtt5),
                b"\x30\x81\x00",
                "malformed-packet",
                "the remaining length has more bytes than it needs",
                2,
            ),
            (client, b"\x30\xe6\x07", "packet-too-large", "1001 bytes, at most 1000 are read", 2),
            (
                client,
                b"\x30\xff\xff\xff\x7f",
                "packet-too-large",
                "268435460 bytes, at most 1000 are read",
                4,
            ),
        ];
        for (limits, data, code, detail, offset) in table {
            assert_eq!(judged(limits, data), Err((code, detail.to_owned(), offset)));
            for have in 0..offset {
                assert_eq!(judged(limits, &data[..have]), Ok(None), "{detail}");
            }
        }
        assert_eq!(judged(client, b"\x30\xe5\x07"), Ok(Some(1000)));
        assert_eq!(judged(client, b"\x30\x81\x00"), Ok(Some(4)));
    }
}
