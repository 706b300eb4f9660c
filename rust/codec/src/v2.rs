//! Version 2: the fixed part and the address block (R20-R30). The TLVs behind them are the business of `tlv`.

use std::net::{SocketAddrV4, SocketAddrV6};

use crate::decoder::Status;
use crate::error::{Error, Reason};
use crate::header::{Address, Addresses, Command, Family, Header, Parsed, Transport, UnixAddress, Version};
use crate::options::Options;
use crate::tlv;

/// The signature (R20).
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The length of the fixed part, which is also the shortest header.
pub(crate) const FIXED_LEN: usize = 16;

/// Reads the header of data that starts with the signature.
///
/// Nothing of the block is read before all of it is there (R30); the fixed part is judged as it comes (C13).
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
    // For LOCAL and for families without addresses too (R28).
    let Some(header) = data.get(..end) else {
        return Ok(Status::Partial { needed: end - data.len() });
    };
    let addresses = if tlvs_at == FIXED_LEN { Addresses::None } else { Addresses::Block };
    let tlvs_end = match addresses {
        _ if tlvs_at == end => end,
        Addresses::None => tlv::check_ignored_block(header, tlvs_at)?,
        _ => tlv::check(header, tlvs_at, options.ignore_malformed_tlvs)?,
    };
    let parsed = Parsed { version: Version::V2, command, family, transport, tlvs_end, addresses };
    Ok(Status::Complete(Header { raw: header, parsed }))
}

/// Less than the fixed part.
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

/// Byte 13 (R25). What LOCAL says there is ignored (R23, C1).
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

/// The bytes 12 and 13, which the builders send.
pub(crate) const fn command_and_family(command: Command, family: Family, transport: Transport) -> [u8; 2] {
    let command = match command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    };
    [command, (family as u8) << 4 | transport as u8]
}

/// Where TLVs may start: behind the addresses (R29), of which there are none where the family or the
/// transport is unspecified (R26, C5).
pub(crate) const fn tlvs_at(family: Family, transport: Transport) -> usize {
    FIXED_LEN
        + match (family, transport) {
            (Family::Unspec, _) | (_, Transport::Unspec) => 0,
            (Family::Inet, _) => 12,
            (Family::Inet6, _) => 36,
            (Family::Unix, _) => 2 * UnixAddress::WIRE_LEN,
        }
}

/// Source and destination out of the block of a header (R29).
pub(crate) fn addresses(header: &[u8], family: Family) -> Option<(Address<'_>, Address<'_>)> {
    let block = header.get(FIXED_LEN..)?;
    match family {
        Family::Unspec => None,
        Family::Inet => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            let (source_port, destination_port) = ports(rest)?;
            let inet = |ip: [u8; 4], port| Address::Inet(SocketAddrV4::new(ip.into(), port));
            Some((inet(*source, source_port), inet(*destination, destination_port)))
        }
        Family::Inet6 => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let (source_port, destination_port) = ports(rest)?;
            let inet6 = |ip: [u8; 16], port| Address::Inet6(SocketAddrV6::new(ip.into(), port, 0, 0));
            Some((inet6(*source, source_port), inet6(*destination, destination_port)))
        }
        Family::Unix => {
            let (source, rest) = block.split_at_checked(UnixAddress::WIRE_LEN)?;
            let destination = rest.get(..UnixAddress::WIRE_LEN)?;
            Some((Address::Unix(unix(source)), Address::Unix(unix(destination))))
        }
    }
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
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
