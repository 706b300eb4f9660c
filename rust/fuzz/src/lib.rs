//! What the fuzz targets share: the options that they try, and the comparison with [`independent_reader`].

use proxyproto_codec::{Address, Command, Header, Options, Version, Versions};

pub mod independent_reader;

/// The default options, and a variant for each option that can be changed.
pub fn all_options() -> [Options; 8] {
    let default = Options::default();
    let largest = with_max(65551);
    [
        default,
        largest,
        with_max(16),
        default.versions(Versions::V1),
        default.versions(Versions::V2),
        largest.allow_mixed_families(true),
        largest.reject_unspec(true),
        largest.ignore_malformed_tlvs(true),
    ]
}

/// Strict options with another limit.
pub fn with_max(max_header_size: usize) -> Options {
    Options::new(Versions::Both, max_header_size).unwrap()
}

/// Sizes of pieces to feed data in. The same data always gives the same.
pub struct Pieces {
    state: u64,
    scale: u64,
}

impl Pieces {
    /// About sixteen pieces, however long the data is.
    pub fn of(data: &[u8]) -> Self {
        let state =
            data.iter().fold(1_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        Self { state, scale: 2 + data.len() as u64 / 8 }
    }

    /// The size of the next piece. It is now and then 0.
    pub fn next_size(&mut self) -> usize {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.state >> 33) % self.scale).unwrap()
    }
}

/// A packet of MQTT with this first byte and body.
pub fn mqtt_packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        packet.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}

/// What a header says, in the form of the independent reader.
pub fn reading(header: &Header<&[u8]>) -> independent_reader::Reading {
    independent_reader::Reading {
        version: match header.version() {
            Version::V1 => 1,
            Version::V2 => 2,
        },
        command: match header.command() {
            Command::Local => 0,
            Command::Proxy => 1,
        },
        family: header.family() as u8,
        transport: header.transport() as u8,
        addresses: header.source().map(address).zip(header.destination().map(address)),
        tlvs: header.tlvs().map(|tlv| (tlv.kind, tlv.value.to_vec())).collect(),
        consumed: header.raw().len(),
    }
}

fn address(address: Address<'_>) -> independent_reader::Address {
    match address {
        Address::Unix(name) => independent_reader::Address::Unix(name.as_bytes().to_vec()),
        ip => independent_reader::Address::Ip(ip.socket_addr().unwrap()),
    }
}

/// A version 2 header around `block`. Its first CRC32C TLV of four bytes gets the right checksum.
///
/// Without it hardly any mutation would get past R34.
pub fn v2_around(command_and_family: [u8; 2], addresses: usize, block: &[u8]) -> Vec<u8> {
    let block = &block[..block.len().min(0xffff)];
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend(command_and_family);
    header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    header.extend(block);
    let mut at = 16 + addresses;
    while let Some(&[kind, high, low]) = header.get(at..).and_then(<[u8]>::first_chunk) {
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind == 3 && len == 4 && header.len() >= at + 7 {
            header[at + 3..at + 7].fill(0);
            let checksum = crc32c::crc32c(&header);
            header[at + 3..at + 7].copy_from_slice(&checksum.to_be_bytes());
            break;
        }
        at += 3 + len;
    }
    header
}
