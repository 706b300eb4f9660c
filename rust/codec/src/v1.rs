//! Version 1: the line (R9, R10, R15-R19). The text of addresses and ports is the business of `v1_address`.

use std::net::IpAddr;

use crate::decoder::{Status, common_prefix};
use crate::error::{Error, Reason};
use crate::header::{Addresses, Command, Family, Header, Parsed, Transport, Version};
use crate::options::Options;
use crate::v1_address::{self as address, Flaw};
use crate::v1_needed;

/// The signature; the space behind it belongs to the line (R9, R32).
pub(crate) const SIGNATURE: [u8; 5] = *b"PROXY";

/// The shortest line, `PROXY UNKNOWN` and its CRLF (R15).
pub(crate) const MIN_LEN: usize = 15;

/// The longest line with its CRLF (R15, R17).
pub(crate) const MAX_LEN: usize = 107;

/// Reads the line of data that starts with the signature. No line end stands before `searched`.
pub(crate) fn decode(data: &[u8], searched: usize, options: Options) -> Result<Status<Header<&[u8]>>, Error> {
    let limit = options.max_header_size.get().min(MAX_LEN);
    let data = data.get(..limit).unwrap_or(data);
    let protocol = match protocol(data, options)? {
        Status::Complete(protocol) => protocol,
        Status::Partial { needed } => return Ok(Status::Partial { needed }),
    };
    let line_end = match protocol {
        Protocol::Tcp(_) => tcp_line_end(data, searched)?,
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
    let line = data.get(..line_end).unwrap_or(data);
    let (family, transport, addresses) = match protocol {
        Protocol::Tcp(family) => (family, Transport::Stream, tcp(line, family, options)?),
        Protocol::Unknown => (Family::Unspec, Transport::Unspec, Addresses::None),
    };
    let version = Version::V1;
    let parsed = Parsed { version, command: Command::Proxy, family, transport, tlvs_end: 0, addresses };
    Ok(Status::Complete(Header { raw: data.get(..line_end + CRLF).unwrap_or(data), parsed }))
}

/// The second word of the line.
#[derive(Clone, Copy)]
enum Protocol {
    Tcp(Family),
    Unknown,
}

/// What may follow the signature: the word and what ends it.
const OPENINGS: [(&[u8], Protocol); 4] = [
    (b" TCP4 ", Protocol::Tcp(Family::Inet)),
    (b" TCP6 ", Protocol::Tcp(Family::Inet6)),
    (b" UNKNOWN ", Protocol::Unknown),
    (b" UNKNOWN\r\n", Protocol::Unknown),
];

/// The length of CRLF.
const CRLF: usize = 2;

/// Where the fields of a TCP4 or TCP6 line start.
const FIELDS_AT: usize = 11;

/// Where the line of UNKNOWN may end.
const UNKNOWN_END_AT: usize = 13;

/// Which protocol it is; a wrong byte is an error at once (C13).
fn protocol(data: &[u8], options: Options) -> Result<Status<Protocol>, Error> {
    let rest = data.get(SIGNATURE.len()..).unwrap_or_default();
    for (opening, protocol) in OPENINGS {
        if rest.starts_with(opening) {
            if options.reject_unspec && matches!(protocol, Protocol::Unknown) {
                return Err(Error::new(Reason::UnspecRejected, SIGNATURE.len() + 1));
            }
            return Ok(Status::Complete(protocol));
        }
    }
    let matched = OPENINGS.map(|(opening, _)| common_prefix(rest, opening));
    let matched = matched.into_iter().max().unwrap_or_default();
    if matched < rest.len() {
        let reason = match matched {
            0 => Reason::NoSpaceAfterProxy,
            _ => Reason::UnknownProtocol,
        };
        return Err(Error::new(reason, SIGNATURE.len() + matched));
    }
    let possible = OPENINGS.iter().filter(|(opening, _)| opening.starts_with(rest));
    let least = possible.map(|&(_, protocol)| match protocol {
        Protocol::Tcp(family) => FIELDS_AT + v1_needed::fields(b"", family, options.allow_mixed_families),
        Protocol::Unknown => MIN_LEN,
    });
    Ok(Status::Partial { needed: least.min().unwrap_or_default().saturating_sub(data.len()) })
}

fn needed(data: &[u8], protocol: Protocol, options: Options) -> usize {
    let fields = data.get(FIELDS_AT..).unwrap_or_default();
    match protocol {
        Protocol::Tcp(family) => v1_needed::fields(fields, family, options.allow_mixed_families),
        Protocol::Unknown => v1_needed::unknown(data),
    }
}

/// The CRLF of a TCP4 or TCP6 line. No CR and no LF may stand by itself, with or without a CRLF behind it (R18).
fn tcp_line_end(data: &[u8], searched: usize) -> Result<Option<usize>, Error> {
    let start = searched.max(FIELDS_AT);
    let text = data.get(start..).unwrap_or_default();
    let Some(position) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match text.get(position..) {
        Some(b"\r") => Ok(None),
        Some([b'\r', b'\n', ..]) => Ok(Some(start + position)),
        _ => Err(Error::new(Reason::StrayLineBreak, start + position)),
    }
}

/// The CRLF of an UNKNOWN line, where anything may stand in front of it (R10, C7).
fn unknown_line_end(data: &[u8], searched: usize) -> Option<usize> {
    let start = searched.max(UNKNOWN_END_AT);
    let text = data.get(start..).unwrap_or_default();
    text.windows(2).position(|pair| pair == b"\r\n").map(|position| start + position)
}

/// Reads the fields of a TCP4 or TCP6 line, which is given without its CRLF.
fn tcp(line: &[u8], family: Family, options: Options) -> Result<Addresses, Error> {
    let mut fields = Fields { line, at: FIELDS_AT };
    let source = fields.address(family, options)?;
    fields.space()?;
    let destination = fields.address(family, options)?;
    fields.space()?;
    let source_port = fields.port()?;
    fields.space()?;
    let destination_port = fields.port()?;
    if fields.at < line.len() {
        return Err(Error::new(Reason::ExtraField, fields.at));
    }
    Ok(Addresses::Text((source, source_port), (destination, destination_port)))
}

/// The fields of a line, read from left to right.
struct Fields<'a> {
    line: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn address(&mut self, family: Family, options: Options) -> Result<IpAddr, Error> {
        let text = self.field()?;
        let by_text = || {
            if text.iter().take_while(|&&byte| byte != b' ').any(|&byte| byte == b':') {
                Family::Inet6
            } else {
                Family::Inet
            }
        };
        let family = if options.allow_mixed_families { by_text() } else { family };
        let read = match family {
            Family::Inet6 => address::ipv6(text).map(|(ip, len)| (IpAddr::V6(ip), len)),
            _ => address::ipv4(text).map(|(ip, len)| (IpAddr::V4(ip), len)),
        };
        let flaw = match read {
            Ok((ip, len)) => {
                self.at += len;
                return Ok(ip);
            }
            Err(flaw) => flaw,
        };
        // An address of the other family is said to be one (R13), whatever is its first wrong byte.
        let other = match family {
            Family::Inet6 => address::ipv4(text).map(|(ip, len)| (IpAddr::V4(ip), len)),
            _ => address::ipv6(text).map(|(ip, len)| (IpAddr::V6(ip), len)),
        };
        Err(self.error(if other.is_ok() { (Reason::FamilyMismatch, 0) } else { flaw }))
    }

    fn port(&mut self) -> Result<u16, Error> {
        let text = self.field()?;
        let (port, len) = address::port(text).map_err(|flaw| self.error(flaw))?;
        self.at += len;
        Ok(port)
    }

    /// From the start of the next field to the end of the line.
    fn field(&self) -> Result<&[u8], Error> {
        match self.line.get(self.at..) {
            Some(text) if !matches!(text.first(), None | Some(b' ')) => Ok(text),
            _ => Err(Error::new(Reason::MissingField, self.at)),
        }
    }

    /// Steps over the space between two fields; a field ends at nothing else but the end of the line.
    fn space(&mut self) -> Result<(), Error> {
        if self.at < self.line.len() {
            self.at += 1;
            Ok(())
        } else {
            Err(Error::new(Reason::MissingField, self.at))
        }
    }

    fn error(&self, (reason, offset): Flaw) -> Error {
        Error::new(reason, self.at + offset)
    }
}
