//! The sender's side: headers that keep the rules S1-S14. A header that was decoded needs none of this: it is its
//! [`raw`](Header::raw) bytes.

use std::fmt;

use crate::header::{Address, Header, Transport};
use crate::ssl::SslInfo;
use crate::tlv::Tlv;

impl Header {
    /// A version 1 header of two IP addresses; flow information and scope of IPv6 are not sent.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a mixed pair (S2) and for UNIX addresses.
    pub fn v1(source: Address<'_>, destination: Address<'_>) -> Result<Self, EncodeError> {
        let _ = (source, destination);
        Err(EncodeError::UnixInV1)
    }

    /// A version 2 PROXY header. With `checksum`, a CRC32C TLV goes in front of the `tlvs`, which keep their order.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for whatever the sender's rules forbid (S4-S14).
    pub fn v2(
        source: Address<'_>,
        destination: Address<'_>,
        transport: Transport,
        tlvs: &[Tlv<'_>],
        checksum: bool,
    ) -> Result<Self, EncodeError> {
        let _ = (source, destination, transport, tlvs, checksum);
        Err(EncodeError::UnixInV1)
    }

    /// A version 2 LOCAL header, for the proxy's own connections such as health checks (S3, S5).
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for TLVs that must not be sent.
    pub fn local(tlvs: &[Tlv<'_>], checksum: bool) -> Result<Self, EncodeError> {
        let _ = (tlvs, checksum);
        Err(EncodeError::UnixInV1)
    }

    /// The version 1 header `PROXY UNKNOWN`, in its short form (S2).
    #[must_use]
    pub fn unknown() -> Self {
        todo!()
    }
}

impl SslInfo<'_> {
    /// The value of an SSL TLV: the `CLIENT_` bits of `client`, the result of the verification, and sub-TLVs.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for sub-TLVs that are not the text they must be, TLS without its version (S11), and what is too long.
    pub fn encode(client: u8, verify: u32, tlvs: &[Tlv<'_>]) -> Result<Vec<u8>, EncodeError> {
        let _ = (client, verify, tlvs);
        Err(EncodeError::SslWithoutVersion)
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
    /// A UNIX path that would be read as something else (C14): it holds a NUL.
    UnixNotAPath,
    /// An abstract name that would be read as something else (C14): no NUL in front, or one at the end.
    UnixNotAbstract,
    /// Addresses with a transport of UNSPEC: receivers disagree about them (C5).
    UnspecTransport,
    /// Addresses and TLVs are longer than the 65535 bytes that the length can say (R28).
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
    /// A `UNIQUE_ID` of more than 128 bytes (S10).
    UniqueIdTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A CRC32C TLV by hand: it is computed last, when asked for (S8).
    ChecksumByHand,
    /// A type that must not be sent: F0..F7 are for experiments, F8..FF are reserved (S14).
    ReservedType {
        /// The type of the TLV.
        kind: u8,
    },
    /// An SSL TLV without its five fixed bytes, or with broken sub-TLVs (R37).
    SslMalformed,
    /// An SSL TLV that says TLS but not which version (S11).
    SslWithoutVersion,
    /// A sub-TLV of SSL that is not the text it must be (S11).
    SslNotText {
        /// The type of the sub-TLV.
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
            Self::SslNotText { kind } => {
                write!(f, "SSL sub-TLV 0x{kind:02x} is not the printable text that it must be")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
