//! The header of a frame (RFC 6455, section 5.2).

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(super) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_final: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) length: u64,
}

impl Header {
    /// Reads a header. `Ok(Err(needed))`: so many bytes it has at least. An error says which rule it breaks.
    pub(super) fn parse(bytes: &[u8]) -> Result<Result<(Self, usize), usize>, &'static str> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(Err(2)) };
        if first & 0x70 != 0 {
            return Err("a frame with reserved bits");
        }
        let opcode = Opcode::of(first & 0x0f).ok_or("a frame of an unknown kind")?;
        if second & 0x80 == 0 {
            return Err("a frame that is not masked");
        }
        let is_final = first & 0x80 != 0;
        let short = second & 0x7f;
        if opcode.is_control() && (!is_final || short > MAX_CONTROL) {
            return Err("a control frame that is fragmented or too long");
        }
        let extension = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let size = 2 + extension + 4;
        let Some((extended, rest)) = rest.split_at_checked(extension) else { return Ok(Err(size)) };
        let Some((mask, _)) = rest.split_first_chunk() else { return Ok(Err(size)) };
        let length = match extension {
            0 => short.into(),
            _ => extended.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 {
            return Err("a frame whose length has the highest bit");
        }
        Ok(Ok((Self { is_final, opcode, mask: *mask, length }, size)))
    }
}

/// Appends the header of a frame of ours: whole, and not masked.
pub(super) fn append(opcode: Opcode, length: usize, wire: &mut Vec<u8>) {
    let bits = match opcode {
        Opcode::Continuation => 0x0,
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    wire.push(0x80 | bits);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => wire.push(short),
        (_, Ok(length)) => {
            wire.push(126);
            wire.extend(length.to_be_bytes());
        }
        _ => {
            wire.push(127);
            wire.extend((length as u64).to_be_bytes());
        }
    }
}

/// The longest header.
pub(super) const MAX_HEADER: usize = 14;
/// The most payload of a control frame.
pub(super) const MAX_CONTROL: u8 = 125;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;

    fn opcode_of(theirs: OpCode) -> Option<Opcode> {
        Some(match theirs {
            OpCode::Data(Data::Continue) => Opcode::Continuation,
            OpCode::Data(Data::Text) => Opcode::Text,
            OpCode::Data(Data::Binary) => Opcode::Binary,
            OpCode::Control(Control::Close) => Opcode::Close,
            OpCode::Control(Control::Ping) => Opcode::Ping,
            OpCode::Control(Control::Pong) => Opcode::Pong,
            _ => return None,
        })
    }

    /// Every two first bytes, with lengths at their bounds, cut at each byte: what tungstenite reads we read, unless it
    /// breaks a rule that tungstenite checks elsewhere.
    #[test]
    fn headers_are_read_as_tungstenite_reads_them() {
        let tails: [[u8; 12]; 4] = [
            [0, 0, 0, 0, 0, 0, 0, 1, 9, 8, 7, 6],
            [0, 125, 0, 126, 1, 2, 3, 4, 5, 6, 7, 8],
            [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
            [0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        ];
        let mut agreed = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for tail in tails {
                    let bytes = [&[first, second], &tail[..]].concat();
                    for end in 0..=bytes.len() {
                        agreed += u32::from(agrees(&bytes[..end]));
                    }
                }
            }
        }
        assert!(agreed > 40_000, "{agreed}");
    }

    /// Whether both have read a header.
    fn agrees(bytes: &[u8]) -> bool {
        let mut cursor = Cursor::new(bytes);
        let theirs = FrameHeader::parse(&mut cursor);
        match (Header::parse(bytes), theirs) {
            (Ok(Ok((ours, size))), Ok(Some((theirs, length)))) => {
                assert_eq!(ours.is_final, theirs.is_final);
                assert_eq!(Some(ours.opcode), opcode_of(theirs.opcode));
                assert_eq!((Some(ours.mask), ours.length), (theirs.mask, length));
                assert_eq!(size as u64, cursor.position());
                true
            }
            (Ok(Err(needed)), Ok(None)) => {
                assert!(needed > bytes.len());
                false
            }
            (Err(_), Err(_)) => false,
            // tungstenite checks these in its connection, and a reserved opcode only when the header is whole.
            (Err(_), Ok(theirs)) => {
                let first = bytes[0];
                let is_unmasked = bytes[1] & 0x80 == 0;
                let is_bad_control =
                    first & 0x08 != 0 && (first & 0x80 == 0 || bytes[1] & 0x7f > MAX_CONTROL);
                let is_too_long = theirs.is_some_and(|(_, length)| length >> 63 != 0);
                let is_reserved = first & 0x70 != 0 || Opcode::of(first & 0x0f).is_none();
                assert!(is_unmasked || is_bad_control || is_too_long || is_reserved, "{bytes:02x?}");
                false
            }
            (ours, theirs) => panic!("{bytes:02x?}: {ours:?}, tungstenite {theirs:?}"),
        }
    }

    #[test]
    fn headers_of_ours_are_read_by_tungstenite() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 40] {
            for opcode in [
                Opcode::Binary,
                Opcode::Close,
                Opcode::Ping,
                Opcode::Pong,
                Opcode::Text,
                Opcode::Continuation,
            ] {
                let mut wire = Vec::new();
                append(opcode, length, &mut wire);
                let (header, size) = FrameHeader::parse(&mut Cursor::new(&wire)).unwrap().unwrap();
                assert_eq!((opcode_of(header.opcode), size), (Some(opcode), length as u64));
                assert!(header.is_final && header.mask.is_none() && wire.len() <= MAX_HEADER - 4);
            }
        }
    }
}
