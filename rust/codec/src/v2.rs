//! Version 2: the fixed part and the address block (R20-R30). The module `tlv` reads the TLVs behind them.

use core::net::{SocketAddrV4, SocketAddrV6};

use crate::decoder::Status;
use crate::error::{Error, Reason};
use crate::header::{Address, Addresses, Command, Family, Header, Parsed, Transport, UnixAddress, Version};
use crate::options::Options;
use crate::tlv;

/// The signature (R20).
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The length of the fixed part, which is also the shortest header.
pub(crate) const FIXED_LEN: usize = 16;

/// Reads the header at the start of `data`, which starts with the signature.
///
/// The fixed part is judged byte by byte as it arrives (C13). The block is read when all of it is there
/// (R30).
pub(crate) fn decode(data: &[u8], options: Options) -> Result<Status<Header<&[u8]>>, Error> {
    let Some(&[.., command, family_and_transport, high, low]) = data.first_chunk::<FIXED_LEN>() else {
        return Ok(Status::Partial { needed: unfinished(data, options)? });
    };
    let command = read_command(command)?;
    let (family, transport) = read_family_and_transport(family_and_transport, command, options)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let tlvs_at = tlvs_at(family, transport);
    let end = FIXED_LEN + len;
    if end < tlvs_at {
        return Err(Error::new(Reason::LengthTooShort, 14));
    }
    if end > options.max_header_size.get() {
        return Err(Error::new(Reason::Oversized, 14));
    }
    // The length counts for LOCAL and for families without addresses too (R28).
    let Some(header) = data.get(..end) else {
        return Ok(Status::Partial { needed: end - data.len() });
    };
    let addresses = match (family, transport) {
        (Family::Unspec, _) | (_, Transport::Unspec) => Addresses::None,
        _ => Addresses::Block,
    };
    let tlvs_end = match addresses {
        _ if tlvs_at == end => end,
        Addresses::None => tlv::check_ignored_block(header, tlvs_at)?,
        _ => tlv::check(header, tlvs_at, options.ignore_malformed_tlvs)?,
    };
    let parsed = Parsed { version: Version::V2, command, family, transport, tlvs_end, addresses };
    Ok(Status::Complete(Header { raw: header, parsed }))
}

/// Judges less than the fixed part, and returns how many bytes of it are missing.
#[cold]
fn unfinished(data: &[u8], options: Options) -> Result<usize, Error> {
    if let Some(&command) = data.get(12) {
        let command = read_command(command)?;
        if let Some(&family_and_transport) = data.get(13) {
            read_family_and_transport(family_and_transport, command, options)?;
        }
    }
    Ok(FIXED_LEN - data.len())
}

/// Byte 12: the version (R21) and the command (R22).
fn read_command(byte: u8) -> Result<Command, Error> {
    match byte {
        0x20 => Ok(Command::Local),
        0x21 => Ok(Command::Proxy),
        0x22..=0x2f => Err(Error::new(Reason::BadCommand, 12)),
        _ => Err(Error::new(Reason::BadVersion, 12)),
    }
}

/// Byte 13: the family and the transport (R25). Of LOCAL this byte is ignored (R23, C1).
fn read_family_and_transport(
    byte: u8,
    command: Command,
    options: Options,
) -> Result<(Family, Transport), Error> {
    if command == Command::Local {
        return Ok((Family::Unspec, Transport::Unspec));
    }
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
    if options.reject_unspec && tlvs_at(family, transport) == FIXED_LEN {
        return Err(Error::new(Reason::UnspecRejected, 13));
    }
    Ok((family, transport))
}

/// Bytes 12 and 13, as the builders write them.
pub(crate) const fn command_and_family(command: Command, family: Family, transport: Transport) -> [u8; 2] {
    let command = match command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    };
    [command, (family as u8) << 4 | transport as u8]
}

/// Where TLVs may start: behind the addresses (R29). There are no addresses where the family or the transport
/// is unspecified (R26, C5).
pub(crate) const fn tlvs_at(family: Family, transport: Transport) -> usize {
    FIXED_LEN
        + match (family, transport) {
            (Family::Unspec, _) | (_, Transport::Unspec) => 0,
            (Family::Inet, _) => 12,
            (Family::Inet6, _) => 36,
            (Family::Unix, _) => 2 * UnixAddress::WIRE_LEN,
        }
}

/// The source (`end` 0) or the destination (`end` 1) in the block of a header (R29).
pub(crate) fn address(header: &[u8], family: Family, end: usize) -> Option<Address<'_>> {
    let block = header.get(FIXED_LEN..)?;
    match family {
        Family::Unspec => None,
        Family::Inet => {
            let (ip, port) = ip_and_port::<4>(block.get(..12)?, end)?;
            Some(Address::Inet(SocketAddrV4::new(ip.into(), port)))
        }
        Family::Inet6 => {
            let (ip, port) = ip_and_port::<16>(block.get(..36)?, end)?;
            Some(Address::Inet6(SocketAddrV6::new(ip.into(), port, 0, 0)))
        }
        Family::Unix => {
            let (fields, _) =
                block.get(..2 * UnixAddress::WIRE_LEN)?.as_chunks::<{ UnixAddress::WIRE_LEN }>();
            fields.get(end).map(|field| Address::Unix(unix(field)))
        }
    }
}

/// Reads one end out of a block of IP addresses, where both addresses stand in front of both ports.
#[inline]
fn ip_and_port<const LEN: usize>(block: &[u8], end: usize) -> Option<([u8; LEN], u16)> {
    let ip = block.get(end * LEN..)?.first_chunk()?;
    let port = block.get(2 * (LEN + end)..)?.first_chunk()?;
    Some((*ip, u16::from_be_bytes(*port)))
}

/// A path ends at its first NUL, an abstract name at its last byte that is not NUL (C14).
fn unix(field: &[u8]) -> UnixAddress<'_> {
    let end = field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let name = field.get(..end).unwrap_or_default();
    match name.first() {
        Some(0) => UnixAddress::Abstract(name),
        _ => UnixAddress::Path(name.split(|&byte| byte == 0).next().unwrap_or_default()),
    }
}
