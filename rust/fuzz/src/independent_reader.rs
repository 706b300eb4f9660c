//! A second reader of PROXY headers, written from the rules alone. The fuzz targets compare the codec with
//! it.
//!
//! It is made to be read beside the rules, not to be fast: it copies, and the standard library reads the text
//! of its addresses. It shares no line and no design with the codec. `tests/codec/independent_reader.py` is
//! its twin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n"; // R20
const V1_LONGEST_LINE: usize = 107; // R17, with its CRLF

const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;
const TLV_SSL: u8 = 0x20;

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// At least one header begins with these bytes.
    Incomplete,
    /// No header begins with these bytes.
    Invalid,
}

/// One end of a connection, as the header gives it.
#[derive(Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Ip(SocketAddr),
    /// The path of a UNIX socket without its padding, or an abstract name with its leading NUL (C14).
    Unix(Vec<u8>),
}

/// What one header says. The numbers are those on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    /// 1 or 2.
    pub version: u8,
    /// 0 LOCAL, 1 PROXY.
    pub command: u8,
    /// 0 UNSPEC, 1 INET, 2 INET6, 3 UNIX.
    pub family: u8,
    /// 0 UNSPEC, 1 STREAM, 2 DGRAM.
    pub transport: u8,
    /// Source and destination, or `None` where the real endpoints apply.
    pub addresses: Option<(Address, Address)>,
    /// In wire order.
    pub tlvs: Vec<(u8, Vec<u8>)>,
    /// The header's length.
    pub consumed: usize,
}

/// Reads the header at the start of a stream (R32).
pub fn read(data: &[u8], max_header_size: usize) -> Result<Reading, Refusal> {
    let common = data.len().min(SIGNATURE.len());
    if data[..common] == SIGNATURE[..common] { read_v2(data, max_header_size) } else { read_v1(data) }
}

fn read_v1(data: &[u8]) -> Result<Reading, Refusal> {
    let protocol = v1_protocol(data)?;
    let line = v1_line(data, protocol == "UNKNOWN")?;
    let consumed = line.len() + 2;
    if protocol == "UNKNOWN" {
        let (addresses, tlvs) = (None, Vec::new()); // R10: the rest of the line is ignored
        return Ok(Reading { version: 1, command: 1, family: 0, transport: 0, addresses, tlvs, consumed });
    }

    let line = str::from_utf8(line).map_err(|_| Refusal::Invalid)?;
    let words: Vec<&str> = line.split(' ').collect(); // R9: a double space leaves an empty word
    let [_, _, source, destination, source_port, destination_port] = words[..] else {
        return Err(Refusal::Invalid);
    };
    let source = v1_address(protocol, source, source_port)?;
    let destination = v1_address(protocol, destination, destination_port)?;
    let family = if protocol == "TCP4" { 1 } else { 2 };
    let addresses = Some((source, destination));
    Ok(Reading { version: 1, command: 1, family, transport: 1, addresses, tlvs: Vec::new(), consumed })
}

/// The second word, once the byte behind it is there. A wrong byte up to here is an error at once (C13).
fn v1_protocol(data: &[u8]) -> Result<&'static str, Refusal> {
    let beginnings = [("TCP4", " "), ("TCP6", " "), ("UNKNOWN", " "), ("UNKNOWN", "\r\n")];
    for (protocol, end) in beginnings {
        let beginning = format!("PROXY {protocol}{end}");
        if data.starts_with(beginning.as_bytes()) {
            return Ok(protocol);
        }
        if beginning.as_bytes().starts_with(data) {
            return Err(Refusal::Incomplete);
        }
    }
    Err(Refusal::Invalid)
}

/// The line without its CRLF (R16, R17).
fn v1_line(data: &[u8], lone_cr_lf_allowed: bool) -> Result<&[u8], Refusal> {
    let window = &data[..data.len().min(V1_LONGEST_LINE)];
    let crlf = (1..window.len()).find(|&i| window[i - 1..=i] == *b"\r\n").map(|i| i - 1);
    if !lone_cr_lf_allowed {
        // R18; C7 allows lone CRs and LFs in an UNKNOWN line. A CR at the end of the window may be half of a
        // CRLF.
        let body = match crlf {
            Some(crlf) => &window[..crlf],
            None => window.strip_suffix(b"\r").unwrap_or(window),
        };
        if body.contains(&b'\r') || body.contains(&b'\n') {
            return Err(Refusal::Invalid);
        }
    }
    match crlf {
        Some(crlf) => Ok(&window[..crlf]),
        None if window.len() == V1_LONGEST_LINE => Err(Refusal::Invalid),
        None => Err(Refusal::Incomplete),
    }
}

fn v1_address(protocol: &str, host: &str, port: &str) -> Result<Address, Refusal> {
    // R11, R12, C6: the standard library refuses zones and leading zeros.
    let ip = match protocol {
        "TCP4" => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        _ => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    };
    let port_is_strict = port.bytes().all(|b| b.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    let port = port.parse::<u16>().ok().filter(|_| port_is_strict); // R14
    ip.zip(port).map(|(ip, port)| Address::Ip(SocketAddr::new(ip, port))).ok_or(Refusal::Invalid)
}

fn read_v2(data: &[u8], max_header_size: usize) -> Result<Reading, Refusal> {
    let command = data.get(12).map(|byte| byte & 0x0F);
    if data.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Refusal::Invalid); // R21, R22
    }
    let wire = data.get(13).map(|byte| (byte >> 4, byte & 0x0F));
    if command == Some(1) && wire.is_some_and(|(family, transport)| family > 3 || transport > 2) {
        return Err(Refusal::Invalid); // R25; R23: LOCAL ignores this byte
    }
    let (Some(command), Some(wire), Some(length)) = (command, wire, data.get(14..16)) else {
        return Err(Refusal::Incomplete);
    };

    let (family, transport) = if command == 0 { (0, 0) } else { wire };
    let has_addresses = family != 0 && transport != 0; // C4, C5: either nibble may be unspecified
    let block_size = match family {
        _ if !has_addresses => 0,
        1 => 12,
        2 => 36,
        _ => 216,
    }; // R29
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let consumed = 16 + length; // R28
    if length < block_size || consumed > max_header_size {
        return Err(Refusal::Invalid);
    }
    let header = data.get(..consumed).ok_or(Refusal::Incomplete)?;

    let block = &header[16..];
    let addresses = has_addresses.then(|| v2_addresses(&block[..block_size]));
    let tlvs = match tlvs(&block[block_size..]) {
        Some(tlvs) => tlvs,
        None if has_addresses => return Err(Refusal::Invalid), // C8, C9, C10
        None => Vec::new(), // C2: the block holds no TLVs, and the receiver ignores it (R23, R26)
    };
    if !checksum_holds(&tlvs, header) {
        return Err(Refusal::Invalid); // C3
    }
    Ok(Reading { version: 2, command, family, transport, addresses, tlvs, consumed })
}

/// R29: source, destination, source port, destination port. UNIX addresses have no ports.
fn v2_addresses(block: &[u8]) -> (Address, Address) {
    if block.len() == 216 {
        return (unix_path(&block[..108]), unix_path(&block[108..]));
    }
    let (ips, ports) = block.split_at(block.len() - 4);
    let (source, destination) = ips.split_at(ips.len() / 2);
    let address = |ip: &[u8], port: &[u8]| {
        let ip = match <[u8; 4]>::try_from(ip) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).unwrap()),
        };
        Address::Ip(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
    };
    (address(source, &ports[..2]), address(destination, &ports[2..]))
}

/// C14.
fn unix_path(field: &[u8]) -> Address {
    let end = match field[0] {
        0 => field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1),
        _ => field.iter().position(|&byte| byte == 0).unwrap_or(field.len()),
    };
    Address::Unix(field[..end].to_vec())
}

/// The TLVs that fill a block, in wire order (C11); `None` if the block holds something else.
fn tlvs(block: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let tlvs = split(block)?;
    let holds = |(kind, value): &(u8, Vec<u8>)| match *kind {
        TLV_CRC32C => value.len() == 4,                                          // R34
        TLV_UNIQUE_ID => value.len() <= 128,                                     // R36, C10
        TLV_SSL => value.get(5..).is_some_and(|nested| split(nested).is_some()), // R37, C9
        _ => true,
    };
    tlvs.iter().all(holds).then_some(tlvs)
}

/// Reads type, two bytes of length and value, up to the last byte of the block (R33, C8).
fn split(mut block: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut tlvs = Vec::new();
    while !block.is_empty() {
        let [kind, high, low, rest @ ..] = block else { return None };
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        tlvs.push((*kind, value.to_vec()));
        block = rest;
    }
    Some(tlvs)
}

/// Allows at most one checksum (C12). It must be that of the whole header, with its own bytes taken as zero
/// (R34).
fn checksum_holds(tlvs: &[(u8, Vec<u8>)], header: &[u8]) -> bool {
    let checksums = tlvs.iter().filter(|(kind, _)| *kind == TLV_CRC32C).count();
    let mut start = header.len() - tlvs.iter().map(|(_, value)| 3 + value.len()).sum::<usize>();
    for (kind, value) in tlvs {
        if *kind == TLV_CRC32C {
            let mut zeroed = header.to_vec();
            zeroed[start + 3..start + 7].fill(0);
            return checksums == 1 && *value == crc32c(&zeroed).to_be_bytes();
        }
        start += 3 + value.len();
    }
    true
}

/// Castagnoli's polynomial, bit by bit, as in appendix B of RFC 4960.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !crc
}
