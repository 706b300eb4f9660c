//! The TLVs behind the addresses: their type numbers, the walk over them, and the views of the simple ones.

use crate::error::{Error, Reason};
use crate::header::Header;
use crate::{crc32c, ssl, v2};

/// One type-length-value of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tlv<'a> {
    /// The type: one of the constants here, or a number that the application defines (E0..EF).
    pub kind: u8,
    /// The value, at most 65535 bytes.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The protocol negotiated by ALPN, as in RFC 7301.
    pub const ALPN: u8 = 0x01;
    /// The host name of the client's SNI, in UTF-8.
    pub const AUTHORITY: u8 = 0x02;
    /// The CRC32C of the whole header, big-endian.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// An opaque id of the connection, at most 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// What the proxy knows about the client's TLS; see [`SslInfo`](crate::SslInfo).
    pub const SSL: u8 = 0x20;
    /// Within SSL: the TLS version, in US-ASCII.
    pub const SSL_VERSION: u8 = 0x21;
    /// Within SSL: the common name of the client's certificate, in UTF-8.
    pub const SSL_CN: u8 = 0x22;
    /// Within SSL: the cipher, in US-ASCII.
    pub const SSL_CIPHER: u8 = 0x23;
    /// Within SSL: the algorithm that signed the certificate, in US-ASCII.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// Within SSL: the algorithm of the certificate's key, in US-ASCII.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// Within SSL: the group of the key exchange, in US-ASCII.
    pub const SSL_GROUP: u8 = 0x26;
    /// Within SSL: the signature scheme of the handshake, in US-ASCII.
    pub const SSL_SIG_SCHEME: u8 = 0x27;
    /// Within SSL: the client's certificate in DER.
    pub const SSL_CLIENT_CERT: u8 = 0x28;
    /// The name of the network namespace, in US-ASCII.
    pub const NETNS: u8 = 0x30;

    /// A TLV of this type and value.
    #[must_use]
    pub const fn new(kind: u8, value: &'a [u8]) -> Self {
        Self { kind, value }
    }
}

impl<B: AsRef<[u8]>> Header<B> {
    /// The TLVs in wire order, with duplicates (C11), NOOP and CRC32C. Version 1 has none.
    pub fn tlvs(&self) -> Tlvs<'_> {
        let start = v2::tlvs_at(self.parsed.family, self.parsed.transport);
        Tlvs { rest: self.raw().get(start..self.parsed.tlvs_end).unwrap_or_default() }
    }

    /// The value of the first TLV of this type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The protocol that the client and the proxy negotiated by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(Tlv::ALPN)
    }

    /// The host name that the client asked for (SNI); `None` if it is not UTF-8 or holds control characters.
    pub fn authority(&self) -> Option<&str> {
        self.tlv(Tlv::AUTHORITY).and_then(text)
    }

    /// The proxy's id of the connection; `None` if it is longer than the 128 bytes allowed (R36).
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(Tlv::UNIQUE_ID).filter(|id| id.len() <= MAX_UNIQUE_ID)
    }

    /// The network namespace of the proxy's connection; `None` if it is not printable US-ASCII.
    pub fn netns(&self) -> Option<&str> {
        self.tlv(Tlv::NETNS).and_then(ascii)
    }
}

/// The TLVs of a header or of its SSL TLV, in wire order.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (tlv, next) = read(self.rest, 0).ok()?;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(tlv)
    }
}

impl<'a> Tlvs<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

/// Checks the TLVs from `start` to the end of `header`, and the CRC32C if there is one. Returns where the
/// readable TLVs end.
///
/// With `lenient` they may end before the header does, and their values may be broken (C8, C9, C10). The
/// checksum must be right all the same.
#[inline]
pub(crate) fn check(header: &[u8], start: usize, lenient: bool) -> Result<usize, Error> {
    let mut at = start;
    let mut checksum_at = None;
    let mut second_checksum = None;
    while at < header.len() {
        let (tlv, next) = match read(header, at) {
            Ok(read) => read,
            Err(_) if lenient => break,
            Err(reason) => return Err(Error::new(reason, at)),
        };
        match tlv.kind {
            Tlv::CRC32C if tlv.value.len() != 4 => return Err(Error::new(Reason::ChecksumLength, at)),
            // Judged below: a block that cannot be read to its end has no checksum (C2).
            Tlv::CRC32C if checksum_at.is_some() => second_checksum = second_checksum.or(Some(at)),
            Tlv::CRC32C => checksum_at = Some(at + TYPE_AND_LENGTH),
            Tlv::UNIQUE_ID if tlv.value.len() > MAX_UNIQUE_ID && !lenient => {
                return Err(Error::new(Reason::UniqueIdTooLong, at));
            }
            Tlv::SSL if !lenient => ssl::check(tlv.value)
                .map_err(|(reason, offset)| Error::new(reason, at + TYPE_AND_LENGTH + offset))?,
            _ => {}
        }
        at = next;
    }
    if let Some(at) = second_checksum {
        return Err(Error::new(Reason::ChecksumTwice, at));
    }
    match checksum_at {
        Some(field) if !crc32c::matches(header, field) => Err(Error::new(Reason::ChecksumMismatch, field)),
        _ => Ok(at),
    }
}

/// Like [`check`], for a block that the receiver ignores (R23, R26): it holds TLVs if the whole block reads
/// as TLVs, else none (C2).
///
/// Some senders put addresses there. Addresses do not look like a CRC32C TLV of four bytes by chance, so such
/// a TLV counts (C3).
pub(crate) fn check_ignored_block(header: &[u8], start: usize) -> Result<usize, Error> {
    match check(header, start, false) {
        Err(error) if matches!(error.reason, Reason::ChecksumMismatch | Reason::ChecksumTwice) => Err(error),
        result => Ok(result.unwrap_or(start)),
    }
}

/// The TLV at `at`, and where the next one starts.
pub(crate) fn read(bytes: &[u8], at: usize) -> Result<(Tlv<'_>, usize), Reason> {
    let rest = bytes.get(at..).unwrap_or_default();
    let (&[kind, high, low], rest) = rest.split_first_chunk().ok_or(Reason::TlvTruncated)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let value = rest.get(..len).ok_or(Reason::TlvOverrun)?;
    Ok((Tlv { kind, value }, at + TYPE_AND_LENGTH + len))
}

/// The value as text: UTF-8 without control characters. It is never repaired.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control))
}

/// The value as text: printable US-ASCII.
pub(crate) fn ascii(value: &[u8]) -> Option<&str> {
    text(value).filter(|text| text.is_ascii())
}

/// The longest `UNIQUE_ID`, in bytes (R36).
pub(crate) const MAX_UNIQUE_ID: usize = 128;

/// The length of a TLV's type and length, which stand in front of its value.
pub(crate) const TYPE_AND_LENGTH: usize = 3;
