//! Reads typed fields off a packet. A field that is cut or wrong gives the [`Detail`] that names it.

use crate::fixed_header::Length;
use crate::{Detail, Field, PacketType};

/// What is wrong with a packet, and at which byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) detail: Detail,
    pub(crate) offset: usize,
}

impl Wrong {
    pub(crate) const fn new(detail: Detail, offset: usize) -> Self {
        Self { detail, offset }
    }
}

/// Where a field stands in its packet, without the length in front of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// No packet has more bytes than the remaining length can say, so both ends fit.
    #[expect(clippy::cast_possible_truncation, reason = "a packet has at most 268,435,460 bytes")]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn bytes(self, packet: &[u8]) -> &[u8] {
        packet.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The field as text, which `Reader::text` has checked.
    pub(crate) fn text(self, packet: &[u8]) -> &str {
        core::str::from_utf8(self.bytes(packet)).unwrap_or_default()
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) const fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) const fn end(self) -> usize {
        self.end as usize
    }
}

/// Goes through a packet, field by field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at byte `at` of a packet. All offsets count from the packet's first byte.
    pub(crate) const fn new(packet: &'a [u8], at: usize) -> Self {
        Self { packet, at }
    }

    pub(crate) fn bytes(&self, span: Span) -> &'a [u8] {
        span.bytes(self.packet)
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn text_of(&self, span: Span) -> &'a str {
        span.text(self.packet)
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.at == self.packet.len()
    }

    pub(crate) fn byte(&mut self, field: Field) -> Result<u8, Wrong> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    pub(crate) fn two(&mut self, field: Field) -> Result<u16, Wrong> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn four(&mut self, field: Field) -> Result<u32, Wrong> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Reads a variable byte integer, which only MQTT 5 has inside its packets.
    pub(crate) fn varint(&mut self, field: Field) -> Result<u32, Wrong> {
        let start = self.at;
        match Length::read(self.packet.get(start..).unwrap_or_default(), true) {
            Ok(Some(length)) => {
                self.at += usize::from(length.bytes);
                Ok(length.value)
            }
            Ok(None) => Err(Wrong::new(Detail::EndsInside(field), start)),
            Err(Detail::LengthTooLong) => Err(Wrong::new(Detail::VarintTooLong(field), start)),
            Err(_) => Err(Wrong::new(Detail::VarintNotMinimal(field), start)),
        }
    }

    /// Reads binary data with a length of two bytes in front.
    pub(crate) fn binary(&mut self, field: Field) -> Result<Span, Wrong> {
        let start = self.at;
        let len = self.two(field)?;
        self.span(usize::from(len), field).map_err(|wrong| Wrong { offset: start, ..wrong })
    }

    /// Reads a string: UTF-8 without NUL (MQTT-1.5.3-1, MQTT-1.5.3-2).
    pub(crate) fn text(&mut self, field: Field) -> Result<Span, Wrong> {
        let span = self.binary(field)?;
        let bytes = span.bytes(self.packet);
        if let Err(error) = core::str::from_utf8(bytes) {
            return Err(Wrong::new(Detail::NotUtf8(field), span.start() + error.valid_up_to()));
        }
        match bytes.iter().position(|&byte| byte == 0) {
            Some(nul) => Err(Wrong::new(Detail::HoldsNul(field), span.start() + nul)),
            None => Ok(span),
        }
    }

    /// Splits off the next `len` bytes, whose fields are to be read on their own.
    pub(crate) fn block(&mut self, len: usize, field: Field) -> Result<Self, Wrong> {
        let span = self.span(len, field)?;
        let packet = self.packet.get(..self.at).unwrap_or_default();
        Ok(Self { packet, at: span.start() })
    }

    /// No byte may follow.
    pub(crate) const fn finish(&self) -> Result<(), Wrong> {
        match self.packet.len() - self.at {
            0 => Ok(()),
            count => Err(Wrong::new(Detail::BytesBehind { count }, self.at)),
        }
    }

    /// The packet must end with its fixed header.
    pub(crate) fn end_of(&self, packet_type: PacketType) -> Result<(), Wrong> {
        self.finish().map_err(|wrong| Wrong { detail: Detail::HasBody { packet_type }, ..wrong })
    }

    fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], Wrong> {
        let rest = self.packet.get(self.at..).unwrap_or_default();
        let array = rest.first_chunk().ok_or(Wrong::new(Detail::EndsInside(field), self.at))?;
        self.at += N;
        Ok(*array)
    }

    pub(crate) fn span(&mut self, len: usize, field: Field) -> Result<Span, Wrong> {
        let start = self.at;
        if self.packet.len() - start < len {
            return Err(Wrong::new(Detail::EndsInside(field), start));
        }
        self.at += len;
        Ok(Span::new(start, self.at))
    }
}
