//! The TLVs behind the addresses: their type numbers, the walk over them, and the views of the simple ones.

use crate::header::Header;

/// One type-length-value of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tlv<'a> {
    /// The type: one of the constants here, or a number of the application's (E0..EF).
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
    /// What the proxy knows of the client's TLS; see [`SslInfo`](crate::SslInfo).
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
    /// The TLVs in wire order, duplicates kept (C11), NOOP and CRC32C among them. None for version 1.
    pub fn tlvs(&self) -> Tlvs<'_> {
        let (start, end) = self.parsed.tlvs;
        Tlvs {
            rest: self
                .raw()
                .get(start as usize..end as usize)
                .unwrap_or_default(),
        }
    }

    /// The value of the first TLV of this type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs()
            .find(|tlv| tlv.kind == kind)
            .map(|tlv| tlv.value)
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
        self.tlv(Tlv::UNIQUE_ID)
            .filter(|id| id.len() <= MAX_UNIQUE_ID)
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
        let (&[kind, high, low], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.rest = rest;
        Some(Tlv { kind, value })
    }
}

impl<'a> Tlvs<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

/// UTF-8 without control characters, which is never repaired.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

/// Printable US-ASCII.
pub(crate) fn ascii(value: &[u8]) -> Option<&str> {
    text(value).filter(|text| text.is_ascii())
}

/// R36.
pub(crate) const MAX_UNIQUE_ID: usize = 128;
