//! Version 1: the line (R9, R10, R15-R19). The module `v1_address` reads the text of addresses and ports.

use core::net::IpAddr;

use crate::decoder::{Status, common_prefix};
use crate::error::{Error, Reason};
use crate::header::{Addresses, Command, Family, Header, Parsed, Transport, Version};
use crate::options::Options;
use crate::v1_address::{self as address, Field};
use crate::v1_needed;

/// The signature. The space behind it belongs to the line (R9, R32).
pub(crate) const SIGNATURE: [u8; 5] = *b"PROXY";

/// The shortest line, `PROXY UNKNOWN` and its CRLF (R15).
pub(crate) const MIN_LEN: usize = 15;

/// The longest line with its CRLF (R15, R17).
pub(crate) const MAX_LEN: usize = 107;

/// Reads the line in `data`, which starts with the signature. No line ends before `searched`.
pub(crate) fn decode(data: &[u8], searched: usize, options: Options) -> Result<Status<Header<&[u8]>>, Error> {
    let limit = options.max_header_size.get().min(MAX_LEN);
    let data = data.get(..limit).unwrap_or(data);
    let rest = data.get(SIGNATURE.len()..).unwrap_or_default();
    let Some(protocol) = protocol(rest) else {
        return Ok(Status::Partial { needed: undecided(rest, limit, options)? });
    };
    let line_end = match protocol {
        Protocol::Tcp(_) => tcp_line_end(data, searched)?,
        Protocol::Unknown if options.reject_unspec => {
            return Err(Error::new(Reason::UnspecRejected, WORD_AT));
        }
        Protocol::Unknown => unknown_line_end(data, searched),
    };
    let Some(line_end) = line_end else {
        let missing = match limit - data.len() {
            0 if limit < MAX_LEN => return Err(Error::new(Reason::Oversized, limit)),
            0 => return Err(Error::new(Reason::LineTooLong, limit)),
            room => room.min(needed(data, protocol, options)),
        };
        return Ok(Status::Partial { needed: missing });
    };
    match protocol {
        Protocol::Tcp(family) if options.allow_mixed_families => tcp(data, line_end, family, address::either),
        Protocol::Tcp(Family::Inet6) => tcp(data, line_end, Family::Inet6, address::inet6),
        Protocol::Tcp(family) => tcp(data, line_end, family, address::inet),
        Protocol::Unknown => Ok(complete(data, line_end, Family::Unspec, Transport::Unspec, Addresses::None)),
    }
}

#[inline]
fn complete(
    data: &[u8],
    line_end: usize,
    family: Family,
    transport: Transport,
    addresses: Addresses,
) -> Status<Header<&[u8]>> {
    let raw = data.get(..line_end + CRLF).unwrap_or(data);
    let version = Version::V1;
    let parsed = Parsed { version, command: Command::Proxy, family, transport, tlvs_end: 0, addresses };
    Status::Complete(Header { raw, parsed })
}

/// The second word of the line.
#[derive(Clone, Copy)]
enum Protocol {
    Tcp(Family),
    Unknown,
}

/// What may follow the signature: the second word and what ends it.
const OPENINGS: [(&[u8], Protocol); 4] = [
    (b" TCP4 ", Protocol::Tcp(Family::Inet)),
    (b" TCP6 ", Protocol::Tcp(Family::Inet6)),
    (b" UNKNOWN ", Protocol::Unknown),
    (b" UNKNOWN\r\n", Protocol::Unknown),
];

/// The length of CRLF.
const CRLF: usize = 2;

/// Where the second word starts.
const WORD_AT: usize = 6;

/// Where the fields of a TCP4 or TCP6 line start.
const FIELDS_AT: usize = 11;

/// The first place where an UNKNOWN line may end.
const UNKNOWN_END_AT: usize = 13;

/// The protocol, once one of the openings is there.
#[inline]
fn protocol(rest: &[u8]) -> Option<Protocol> {
    // Without a loop each comparison has a constant length. UNKNOWN comes first because nothing else of its
    // line is read.
    let [tcp4, tcp6, unknown, short_unknown] = OPENINGS;
    if rest.starts_with(short_unknown.0) || rest.starts_with(unknown.0) {
        Some(unknown.1)
    } else if rest.starts_with(tcp4.0) {
        Some(tcp4.1)
    } else if rest.starts_with(tcp6.0) {
        Some(tcp6.1)
    } else {
        None
    }
}

/// How many more bytes are needed when `rest`, the bytes behind the signature, is only part of an opening. A
/// byte that fits no opening is an error at once (C13).
#[cold]
fn undecided(rest: &[u8], limit: usize, options: Options) -> Result<usize, Error> {
    let possible = OPENINGS.iter().filter(|(opening, _)| opening.starts_with(rest));
    let least = possible.map(|&(_, protocol)| match protocol {
        Protocol::Tcp(family) => FIELDS_AT + v1_needed::fields(b"", family, options.allow_mixed_families),
        Protocol::Unknown => MIN_LEN,
    });
    if let Some(least) = least.min() {
        return Ok(least.min(limit).saturating_sub(SIGNATURE.len() + rest.len()));
    }
    let matched = OPENINGS.iter().map(|(opening, _)| common_prefix(rest, opening)).max().unwrap_or_default();
    let reason = if matched == 0 { Reason::NoSpaceAfterProxy } else { Reason::UnknownProtocol };
    Err(Error::new(reason, SIGNATURE.len() + matched))
}

fn needed(data: &[u8], protocol: Protocol, options: Options) -> usize {
    let fields = data.get(FIELDS_AT..).unwrap_or_default();
    match protocol {
        Protocol::Tcp(family) => v1_needed::fields(fields, family, options.allow_mixed_families),
        Protocol::Unknown => v1_needed::unknown(data),
    }
}

/// Finds the CRLF of a TCP4 or TCP6 line. A CR or LF by itself is an error, whether or not a CRLF follows
/// (R18).
fn tcp_line_end(data: &[u8], searched: usize) -> Result<Option<usize>, Error> {
    let start = searched.max(FIELDS_AT);
    let text = data.get(start..).unwrap_or_default();
    let Some(position) = line_break(text) else {
        return Ok(None);
    };
    match text.get(position..) {
        Some(b"\r") => Ok(None),
        Some([b'\r', b'\n', ..]) => Ok(Some(start + position)),
        _ => Err(Error::new(Reason::StrayLineBreak, start + position)),
    }
}

/// Finds the first CR or LF, eight bytes at a time. Byte by byte the search takes a third of the time of a
/// TCP4 line.
fn line_break(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest bit that is set belongs to the first byte that is zero. The bits above it may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH_BITS;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'\r'))) | zeros(word ^ (ONES * u64::from(b'\n')));
        if found != 0 {
            return Some(8 * index + found.trailing_zeros() as usize / 8);
        }
    }
    let position = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    Some(8 * words.len() + position)
}

/// Finds the CRLF of an UNKNOWN line. Anything may stand in front of it (R10, C7).
fn unknown_line_end(data: &[u8], searched: usize) -> Option<usize> {
    let start = searched.max(UNKNOWN_END_AT);
    let text = data.get(start..).unwrap_or_default();
    if text.starts_with(b"\r\n") {
        // Nearly every sender ends the line here.
        return Some(start);
    }
    text.windows(2).position(|pair| pair == b"\r\n").map(|position| start + position)
}

/// Reads the fields of a TCP4 or TCP6 line.
#[inline]
fn tcp(
    data: &[u8],
    line_end: usize,
    family: Family,
    read: impl Fn(&[u8]) -> Field<IpAddr>,
) -> Result<Status<Header<&[u8]>>, Error> {
    let line = data.get(..line_end).unwrap_or(data);
    let mut fields = Fields { line, at: FIELDS_AT };
    let source = fields.read(&read)?;
    fields.space()?;
    let destination = fields.read(&read)?;
    fields.space()?;
    let source_port = fields.read(address::port)?;
    fields.space()?;
    let destination_port = fields.read(address::port)?;
    if fields.at < line.len() {
        return Err(Error::new(Reason::ExtraField, fields.at));
    }
    let addresses = Addresses::Text((source, source_port), (destination, destination_port));
    Ok(complete(data, line_end, family, Transport::Stream, addresses))
}

/// The fields of a line, read from left to right.
struct Fields<'a> {
    line: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    #[inline]
    fn read<T>(&mut self, read: impl Fn(&[u8]) -> Field<T>) -> Result<T, Error> {
        match read(self.field()?) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err((reason, offset)) => Err(Error::new(reason, self.at + offset)),
        }
    }

    /// The line from the start of the next field to its end.
    fn field(&self) -> Result<&[u8], Error> {
        match self.line.get(self.at..) {
            Some(text) if !matches!(text.first(), None | Some(b' ')) => Ok(text),
            _ => Err(Error::new(Reason::MissingField, self.at)),
        }
    }

    /// Steps over the space between two fields. A field ends at a space or at the end of the line.
    fn space(&mut self) -> Result<(), Error> {
        if self.at < self.line.len() {
            self.at += 1;
            Ok(())
        } else {
            Err(Error::new(Reason::MissingField, self.at))
        }
    }
}
