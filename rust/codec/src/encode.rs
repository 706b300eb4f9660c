//! The sender's side: builds headers that keep the rules S1-S14. A decoded header needs no encoder: its bytes
//! are [`raw`](Header::raw).

use alloc::boxed::Box;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use crate::header::{Address, Addresses, Command, Family, Header, Parsed, Transport, UnixAddress, Version};
use crate::ssl::SslInfo;
use crate::tlv::{self, Tlv};
use crate::{crc32c, v2};

impl Header {
    /// A version 1 header for two IP addresses. It carries no flow information and no scope of IPv6
    /// addresses.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the two addresses are of different families, or if they are UNIX addresses (S2).
    pub fn v1(source: Address<'_>, destination: Address<'_>) -> Result<Self, EncodeError> {
        let family = common_family(source, destination)?;
        let protocol = if family == Family::Inet { "TCP4" } else { "TCP6" };
        let (Some(from), Some(to)) = (source.socket_addr(), destination.socket_addr()) else {
            return Err(EncodeError::UnixInV1);
        };
        let (from, to) = ((from.ip(), from.port()), (to.ip(), to.port()));
        let line = format!("PROXY {protocol} {} {} {} {}\r\n", from.0, to.0, from.1, to.1);
        let parsed = Parsed {
            version: Version::V1,
            command: Command::Proxy,
            family,
            transport: Transport::Stream,
            tlvs_end: 0,
            addresses: Addresses::Text(from, to),
        };
        Ok(Self { raw: line.into_bytes().into(), parsed })
    }

    /// The version 1 header `PROXY UNKNOWN`, in its short form (S2).
    #[must_use]
    pub fn unknown() -> Self {
        let line = b"PROXY UNKNOWN\r\n";
        let parsed = Parsed {
            version: Version::V1,
            command: Command::Proxy,
            family: Family::Unspec,
            transport: Transport::Unspec,
            tlvs_end: 0,
            addresses: Addresses::None,
        };
        Self { raw: Box::new(*line), parsed }
    }

    /// A version 2 PROXY header. With `checksum`, a CRC32C TLV goes in front of `tlvs`. The `tlvs` keep their
    /// order.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for addresses and TLVs that the sender's rules forbid (S4-S14).
    pub fn v2(
        source: Address<'_>,
        destination: Address<'_>,
        transport: Transport,
        tlvs: &[Tlv<'_>],
        checksum: bool,
    ) -> Result<Self, EncodeError> {
        let family = common_family(source, destination)?;
        if transport == Transport::Unspec {
            return Err(EncodeError::UnspecTransport);
        }
        let parsed = Parsed {
            version: Version::V2,
            command: Command::Proxy,
            family,
            transport,
            tlvs_end: 0,
            addresses: Addresses::Block,
        };
        assemble(parsed, &addresses(source, destination)?, tlvs, checksum)
    }

    /// A version 2 LOCAL header, for the proxy's own connections such as health checks (S3, S5).
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for TLVs that the sender's rules forbid.
    pub fn local(tlvs: &[Tlv<'_>], checksum: bool) -> Result<Self, EncodeError> {
        let parsed = Parsed {
            version: Version::V2,
            command: Command::Local,
            family: Family::Unspec,
            transport: Transport::Unspec,
            tlvs_end: 0,
            addresses: Addresses::None,
        };
        assemble(parsed, &[], tlvs, checksum)
    }
}

impl SslInfo<'_> {
    /// The value of an SSL TLV: the `CLIENT_` bits, the result of the verification, and the sub-TLVs.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if a sub-TLV is too long or not the text it must be, or if `client` says TLS and no
    /// sub-TLV says which version (S11).
    pub fn encode(client: u8, verify: u32, tlvs: &[Tlv<'_>]) -> Result<Vec<u8>, EncodeError> {
        let mut value = vec![client];
        value.extend(verify.to_be_bytes());
        for tlv in tlvs {
            push(&mut value, *tlv)?;
        }
        check_ssl(&value)?;
        Ok(value)
    }
}

/// Why a header cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncodeError {
    /// Source and destination are of different families (R13, R25).
    MixedFamilies,
    /// Version 1 has no UNIX addresses (S2).
    UnixInV1,
    /// A UNIX path or name does not fit its 108 bytes (R29).
    UnixTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A UNIX path holds a NUL, so a receiver would read something else (C14).
    UnixNotAPath,
    /// An abstract name does not start with a NUL, or ends with one, so a receiver would read something else
    /// (C14).
    UnixNotAbstract,
    /// There are addresses, but the transport is UNSPEC. Receivers disagree about such headers (C5).
    UnspecTransport,
    /// Addresses and TLVs are longer than the 65535 bytes that the length field can express (R28).
    TooLong {
        /// Their length in bytes.
        len: usize,
    },
    /// The value of a TLV is longer than 65535 bytes.
    TlvTooLong {
        /// The type of the TLV.
        kind: u8,
        /// The length of its value in bytes.
        len: usize,
    },
    /// A `UNIQUE_ID` is longer than 128 bytes (S10).
    UniqueIdTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A CRC32C TLV was given by hand. The builder computes it, last of all, when asked for (S8).
    ChecksumByHand,
    /// The type must not be sent: F0..F7 are for experiments, F8..FF are reserved (S14).
    ReservedType {
        /// The type of the TLV.
        kind: u8,
    },
    /// An SSL TLV lacks its five fixed bytes, or its sub-TLVs are broken (R37).
    SslMalformed,
    /// An SSL TLV says TLS but not which version (S11).
    SslWithoutVersion,
    /// A value is not the text it must be: UTF-8 or US-ASCII (S11), without control characters.
    NotText {
        /// The type of the TLV, or of the sub-TLV of SSL.
        kind: u8,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MixedFamilies => f.write_str("source and destination are of different families"),
            Self::UnixInV1 => f.write_str("version 1 cannot carry UNIX addresses"),
            Self::UnixTooLong { len } => {
                write!(f, "a UNIX address of {len} bytes, where at most 108 fit")
            }
            Self::UnixNotAPath => f.write_str("a UNIX path that holds a NUL"),
            Self::UnixNotAbstract => {
                f.write_str("an abstract UNIX name must start with a NUL and not end with one")
            }
            Self::UnspecTransport => f.write_str("addresses need a transport: stream or datagram"),
            Self::TooLong { len } => write!(f, "{len} bytes of addresses and TLVs, where at most 65535 fit"),
            Self::TlvTooLong { kind, len } => {
                write!(f, "a TLV of type 0x{kind:02x} with {len} bytes, where at most 65535 fit")
            }
            Self::UniqueIdTooLong { len } => {
                write!(f, "a UNIQUE_ID of {len} bytes, where at most 128 are allowed")
            }
            Self::ChecksumByHand => f.write_str("a CRC32C TLV is computed, not given: ask for the checksum"),
            Self::ReservedType { kind } => {
                write!(
                    f,
                    "TLV type 0x{kind:02x} must not be sent: F0 to F7 are for experiments, F8 to FF are reserved"
                )
            }
            Self::SslMalformed => {
                f.write_str("an SSL TLV without its five fixed bytes, or with broken sub-TLVs")
            }
            Self::SslWithoutVersion => f.write_str("an SSL TLV that says TLS needs a VERSION sub-TLV"),
            Self::NotText { kind } => {
                write!(f, "a TLV of type 0x{kind:02x} that is not printable text")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

/// Puts a version 2 header together. The checksum covers everything else, so it is filled in last (S8).
fn assemble(
    parsed: Parsed,
    addresses: &[u8],
    tlvs: &[Tlv<'_>],
    checksum: bool,
) -> Result<Header, EncodeError> {
    let mut raw = v2::SIGNATURE.to_vec();
    raw.extend(v2::command_and_family(parsed.command, parsed.family, parsed.transport));
    raw.extend([0; 2]);
    raw.extend(addresses);
    let tlvs_at = raw.len();
    if checksum {
        push(&mut raw, Tlv::new(Tlv::CRC32C, &[0; crc32c::LEN]))?;
    }
    for tlv in tlvs {
        check(*tlv)?;
        push(&mut raw, *tlv)?;
    }
    let len = raw.len() - v2::FIXED_LEN;
    let length = u16::try_from(len).map_err(|_| EncodeError::TooLong { len })?;
    overwrite(&mut raw, v2::FIXED_LEN - 2, length.to_be_bytes());
    if checksum {
        let field = tlvs_at + tlv::TYPE_AND_LENGTH;
        let checksum = crc32c::checksum(&raw, field);
        overwrite(&mut raw, field, checksum.to_be_bytes());
    }
    let tlvs_end = raw.len();
    Ok(Header { raw: raw.into(), parsed: Parsed { tlvs_end, ..parsed } })
}

fn push(raw: &mut Vec<u8>, Tlv { kind, value }: Tlv<'_>) -> Result<(), EncodeError> {
    let len = value.len();
    let length = u16::try_from(len).map_err(|_| EncodeError::TlvTooLong { kind, len })?;
    raw.push(kind);
    raw.extend(length.to_be_bytes());
    raw.extend(value);
    Ok(())
}

fn overwrite<const N: usize>(raw: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = raw.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = bytes;
    }
}

fn common_family(source: Address<'_>, destination: Address<'_>) -> Result<Family, EncodeError> {
    if source.family() == destination.family() {
        Ok(source.family())
    } else {
        Err(EncodeError::MixedFamilies)
    }
}

/// The address block: source, destination, and the ports of IP addresses (R29).
fn addresses(source: Address<'_>, destination: Address<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut block = Vec::with_capacity(2 * UnixAddress::WIRE_LEN);
    for address in [source, destination] {
        match address {
            Address::Inet(address) => block.extend(address.ip().octets()),
            Address::Inet6(address) => block.extend(address.ip().octets()),
            Address::Unix(address) => block.extend(unix(address)?),
        }
    }
    for address in [source, destination] {
        block.extend(address.socket_addr().map(|address| address.port().to_be_bytes()).into_iter().flatten());
    }
    Ok(block)
}

/// The field of a UNIX address. A receiver reads the same address out of it (C14).
fn unix(address: UnixAddress<'_>) -> Result<[u8; UnixAddress::WIRE_LEN], EncodeError> {
    let bytes = address.as_bytes();
    match address {
        UnixAddress::Path(path) if path.contains(&0) => return Err(EncodeError::UnixNotAPath),
        UnixAddress::Abstract(name) if name.first() != Some(&0) || name.last() == Some(&0) => {
            return Err(EncodeError::UnixNotAbstract);
        }
        _ => {}
    }
    let mut field = [0; UnixAddress::WIRE_LEN];
    let len = bytes.len();
    field.get_mut(..len).ok_or(EncodeError::UnixTooLong { len })?.copy_from_slice(bytes);
    Ok(field)
}

/// Whether a TLV given by hand may be sent.
fn check(Tlv { kind, value }: Tlv<'_>) -> Result<(), EncodeError> {
    let len = value.len();
    match kind {
        Tlv::CRC32C => Err(EncodeError::ChecksumByHand),
        Tlv::UNIQUE_ID if len > tlv::MAX_UNIQUE_ID => Err(EncodeError::UniqueIdTooLong { len }),
        Tlv::SSL => check_ssl(value),
        Tlv::AUTHORITY if tlv::text(value).is_none() => Err(EncodeError::NotText { kind }),
        Tlv::NETNS if tlv::ascii(value).is_none() => Err(EncodeError::NotText { kind }),
        0xf0.. => Err(EncodeError::ReservedType { kind }),
        _ => Ok(()),
    }
}

/// Whether an SSL TLV keeps R37 and S11.
fn check_ssl(value: &[u8]) -> Result<(), EncodeError> {
    let info = SslInfo::read(value).ok_or(EncodeError::SslMalformed)?;
    for Tlv { kind, value } in info.tlvs() {
        let text = match kind {
            Tlv::SSL_CN => tlv::text(value),
            Tlv::SSL_VERSION..=Tlv::SSL_SIG_SCHEME => tlv::ascii(value),
            _ => continue,
        };
        text.ok_or(EncodeError::NotText { kind })?;
    }
    if info.client_tls() && info.version().is_none() { Err(EncodeError::SslWithoutVersion) } else { Ok(()) }
}
