//! Version 2: the fixed part and the address block (R20-R30). The TLVs behind them are the business of `tlv`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::decoder::Status;
use crate::error::{Error, Reason};
use crate::header::{Command, Endpoint, Family, Parsed, Transport, UnixAddress, Version};
use crate::options::Options;
use crate::tlv;

/// The signature (R20).
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The length of the fixed part, which is also the shortest header.
pub(crate) const FIXED_LEN: usize = 16;

/// What the first 16 bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    command: Command,
    family: Family,
    transport: Transport,
    /// Where the header ends: at 16 + len, for LOCAL too (R28).
    end: usize,
}

/// Reads the fixed part of data that starts with the signature; each byte is judged as soon as it is there (C13).
pub(crate) fn fixed_part(data: &[u8], options: Options) -> Result<Status<Fixed>, Error> {
    let partial = Ok(Status::Partial { needed: FIXED_LEN.saturating_sub(data.len()) });
    let Some(&byte) = data.get(12) else {
        return partial;
    };
    let command = match byte {
        0x20 => Command::Local,
        0x21 => Command::Proxy,
        0x22..=0x2f => return Err(Error::new(Reason::BadCommand, 12)),
        _ => return Err(Error::new(Reason::BadVersion, 12)),
    };
    let Some(&byte) = data.get(13) else {
        return partial;
    };
    // What LOCAL says here is ignored (R23, C1).
    let (family, transport) = match command {
        Command::Local => (Family::Unspec, Transport::Unspec),
        Command::Proxy => family_and_transport(byte)?,
    };
    let addresses_len = addresses_len(family, transport);
    if options.reject_unspec && command == Command::Proxy && addresses_len == 0 {
        return Err(Error::new(Reason::UnspecRejected, 13));
    }
    let Some(&[high, low]) = data.get(14..FIXED_LEN).and_then(<[u8]>::first_chunk) else {
        return partial;
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < addresses_len {
        return Err(Error::new(Reason::LengthTooShort, 14));
    }
    let end = FIXED_LEN + len;
    if end > options.max_header_size.get() {
        return Err(Error::new(Reason::Oversized, 14));
    }
    Ok(Status::Complete(Fixed { command, family, transport, end }))
}

/// Reads the block behind the fixed part, once all of it is there (R30).
pub(crate) fn decode(data: &[u8], fixed: Fixed, options: Options) -> Result<Status<(Parsed, usize)>, Error> {
    let Fixed { command, family, transport, end } = fixed;
    let Some(header) = data.get(..end) else {
        return Ok(Status::Partial { needed: end.saturating_sub(data.len()) });
    };
    let block = header.get(FIXED_LEN..).unwrap_or_default();
    let (source, destination) =
        addresses(block, family, transport).unwrap_or((Endpoint::Unspec, Endpoint::Unspec));
    let addresses_end = FIXED_LEN + addresses_len(family, transport);
    let tlvs_end = if addresses_end == end {
        end
    } else if addresses_end == FIXED_LEN {
        tlv::check_ignored_block(header, FIXED_LEN)?
    } else {
        tlv::check(header, addresses_end, options.ignore_malformed_tlvs)?
    };
    let parsed = Parsed {
        version: Version::V2,
        command,
        family,
        transport,
        source,
        destination,
        tlvs: (addresses_end, tlvs_end),
    };
    Ok(Status::Complete((parsed, end)))
}

/// The bytes 12 and 13, which the builders send.
pub(crate) const fn command_and_family(command: Command, family: Family, transport: Transport) -> [u8; 2] {
    let command = match command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    };
    [command, (family as u8) << 4 | transport as u8]
}

/// The two nibbles of byte 13 (R25).
fn family_and_transport(byte: u8) -> Result<(Family, Transport), Error> {
    let family = match byte >> 4 {
        0 => Family::Unspec,
        1 => Family::Inet,
        2 => Family::Inet6,
        3 => Family::Unix,
        _ => return Err(Error::new(Reason::BadFamily, 13)),
    };
    let transport = match byte & 0x0f {
        0 => Transport::Unspec,
        1 => Transport::Stream,
        2 => Transport::Dgram,
        _ => return Err(Error::new(Reason::BadTransport, 13)),
    };
    Ok((family, transport))
}

/// The bytes that the addresses take (R29): none where one of the two is unspecified (R26, C5).
const fn addresses_len(family: Family, transport: Transport) -> usize {
    match (family, transport) {
        (Family::Unspec, _) | (_, Transport::Unspec) => 0,
        (Family::Inet, _) => 12,
        (Family::Inet6, _) => 36,
        (Family::Unix, _) => 2 * UnixAddress::WIRE_LEN,
    }
}

/// Source and destination at the start of the block; `None` where there are none.
fn addresses(block: &[u8], family: Family, transport: Transport) -> Option<(Endpoint, Endpoint)> {
    match (family, transport) {
        (Family::Unspec, _) | (_, Transport::Unspec) => None,
        (Family::Inet, _) => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            let (source_port, destination_port) = ports(rest)?;
            let endpoint = |ip, port| Endpoint::Inet(SocketAddrV4::new(Ipv4Addr::from(ip), port));
            Some((endpoint(*source, source_port), endpoint(*destination, destination_port)))
        }
        (Family::Inet6, _) => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let (source_port, destination_port) = ports(rest)?;
            let endpoint = |ip, port| Endpoint::Inet6(Ipv6Addr::from(ip), port);
            Some((endpoint(*source, source_port), endpoint(*destination, destination_port)))
        }
        (Family::Unix, _) => Some((Endpoint::Unix, Endpoint::Unix)),
    }
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
