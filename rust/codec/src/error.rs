//! What can be wrong with a header: [`Error`], and [`Reason`], the one table of codes and texts.
//!
//! The acceptor decides which outcome (counter, log reason) a [`Fault`] becomes.

use core::fmt;

/// Why the bytes are not a header, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    /// The rule that is broken.
    pub reason: Reason,
    /// The byte where it went wrong, counted from 0 at the first byte of the stream or datagram.
    pub offset: usize,
}

impl Error {
    /// The kind of fault: [`Reason::fault`] of its reason.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.reason.fault()
    }

    pub(crate) const fn new(reason: Reason, offset: usize) -> Self {
        Self { reason, offset }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid PROXY header at byte {}: {}", self.offset, self.reason)
    }
}

impl core::error::Error for Error {}

/// What a refused header means to the reader of a log. There are five kinds, however many reasons there are.
///
/// The enum is exhaustive on purpose: whoever counts the kinds needs an outcome for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The first bytes are no PROXY signature at all (R32, R39).
    NoHeader,
    /// A PROXY signature of a version that [`Options::versions`](crate::Options::versions) leaves out.
    VersionNotAllowed,
    /// A header longer than [`Options::max_header_size`](crate::Options::max_header_size).
    Oversized,
    /// The CRC32C of the header is wrong, or is not of four bytes, or is there twice (R34).
    BadChecksum,
    /// The signature is right, but something behind it is not allowed.
    Malformed,
}

impl Fault {
    /// The outcome under which a listener counts it, such as `missing-header`. It does not change between versions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoHeader => "missing-header",
            Self::VersionNotAllowed => "version-not-allowed",
            Self::Oversized => "oversized",
            Self::BadChecksum => "bad-checksum",
            Self::Malformed => "malformed",
        }
    }
}

/// Writes [`Reason`] and its table, so that every variant has a code, a text and a fault.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident, $fault:ident, $code:literal, $text:literal;)+) => {
        /// Every reason to refuse a header: the one published table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable lower-case code, for machines: `"port-leading-zero"`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The text for people, lower case and without a full stop: `"leading zero in a port"`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The kind of fault.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)+ }
            }
        }
    };
}

reasons! {
    /// The first bytes cannot become a signature of either version (R32, R39).
    BadSignature, NoHeader, "bad-signature", "no PROXY signature";
    /// A signature of a version that the options leave out.
    VersionNotAllowed, VersionNotAllowed, "version-not-allowed", "a header of a version that is not allowed here";
    /// The header is longer than `max_header_size`.
    Oversized, Oversized, "oversized", "longer than the largest header accepted here";
    /// A datagram ends inside its header (R6).
    Truncated, Malformed, "truncated", "the datagram ends inside its header";
    /// `UNKNOWN`, or UNSPEC as family or transport, where `reject_unspec` is set (R10, R26).
    UnspecRejected, Malformed, "unspec-rejected", "a header without addresses is not accepted here";

    /// `PROXY` is not followed by one space (R9).
    NoSpaceAfterProxy, Malformed, "no-space-after-proxy", "no space after PROXY";
    /// The second word is none of `TCP4`, `TCP6` and `UNKNOWN` (R9).
    UnknownProtocol, Malformed, "unknown-protocol", "the protocol is none of TCP4, TCP6 and UNKNOWN";
    /// No CRLF within the first 107 bytes (R17).
    LineTooLong, Malformed, "line-too-long", "no CRLF within the first 107 bytes";
    /// A CR or an LF that is not part of the CRLF at the end (R18).
    StrayLineBreak, Malformed, "stray-line-break", "a CR or an LF by itself";
    /// A field of the line is missing, or two spaces stand together (R9).
    MissingField, Malformed, "missing-field", "an address or a port is missing";
    /// Something stands between the destination port and the CRLF (R9).
    ExtraField, Malformed, "extra-field", "more than two addresses and two ports";
    /// An address is not of the announced family (R13).
    FamilyMismatch, Malformed, "family-mismatch", "an address is not of the announced family";
    /// An IPv4 address holds something else than digits and dots (R11).
    Ipv4BadCharacter, Malformed, "ipv4-bad-character", "neither a digit nor a dot in an IPv4 address";
    /// An IPv4 address does not have four numbers (R11).
    Ipv4NotFourOctets, Malformed, "ipv4-not-four-octets", "an IPv4 address without exactly four numbers";
    /// A number of an IPv4 address starts with a zero (R11).
    Ipv4LeadingZero, Malformed, "ipv4-leading-zero", "leading zero in an IPv4 address";
    /// A number of an IPv4 address is larger than 255 (R11).
    Ipv4OctetTooLarge, Malformed, "ipv4-octet-too-large", "a number larger than 255 in an IPv4 address";
    /// An IPv6 address holds something else than hex digits and colons (R12).
    Ipv6BadCharacter, Malformed, "ipv6-bad-character", "neither a hex digit nor a colon in an IPv6 address";
    /// A group of an IPv6 address has more than four digits (R12).
    Ipv6GroupTooLong, Malformed, "ipv6-group-too-long", "more than four digits in a group of an IPv6 address";
    /// An IPv6 address has a colon too many, or a single one at its start or end (R12).
    Ipv6EmptyGroup, Malformed, "ipv6-empty-group", "an empty group in an IPv6 address";
    /// `::` stands twice in an IPv6 address (R12).
    Ipv6SecondDoubleColon, Malformed, "ipv6-second-double-colon", "a second :: in an IPv6 address";
    /// An IPv6 address does not have 128 bits (R12).
    Ipv6NotEightGroups, Malformed, "ipv6-not-eight-groups", "an IPv6 address that is not of 128 bits";
    /// A port holds something else than digits (R14).
    PortNotDecimal, Malformed, "port-not-decimal", "not a digit in a port";
    /// A port starts with a zero and is not 0 (R14).
    PortLeadingZero, Malformed, "port-leading-zero", "leading zero in a port";
    /// A port is larger than 65535 (R14).
    PortTooLarge, Malformed, "port-too-large", "a port larger than 65535";

    /// The version nibble behind the binary signature is not 2 (R21).
    BadVersion, Malformed, "bad-version", "the version nibble is not 2";
    /// The command is neither LOCAL nor PROXY (R22).
    BadCommand, Malformed, "bad-command", "the command is neither LOCAL nor PROXY";
    /// The family nibble is larger than 3 (R25).
    BadFamily, Malformed, "bad-family", "undefined address family";
    /// The transport nibble is larger than 2 (R25).
    BadTransport, Malformed, "bad-transport", "undefined transport";
    /// The length cannot hold the addresses of the family (R29).
    LengthTooShort, Malformed, "length-too-short", "the length cannot hold the addresses";

    /// One or two bytes are left where a TLV needs three (C8).
    TlvTruncated, Malformed, "tlv-truncated", "a TLV without its type and length";
    /// The value of a TLV reaches past the end of the header (C8).
    TlvOverrun, Malformed, "tlv-overrun", "the value of a TLV ends behind the header";
    /// The `UNIQUE_ID` is longer than 128 bytes (R36, C10).
    UniqueIdTooLong, Malformed, "unique-id-too-long", "a UNIQUE_ID of more than 128 bytes";
    /// The SSL TLV is shorter than its five fixed bytes (C9).
    SslTooShort, Malformed, "ssl-too-short", "an SSL TLV of less than five bytes";
    /// One or two bytes are left in the SSL TLV where a sub-TLV needs three (C9).
    SslTlvTruncated, Malformed, "ssl-tlv-truncated", "an SSL sub-TLV without its type and length";
    /// The value of an SSL sub-TLV reaches past the end of the SSL TLV (C9).
    SslTlvOverrun, Malformed, "ssl-tlv-overrun", "the value of an SSL sub-TLV ends behind the SSL TLV";

    /// The CRC32C TLV does not have four bytes (R34).
    ChecksumLength, BadChecksum, "checksum-length", "a CRC32C TLV that is not of four bytes";
    /// The CRC32C is not the checksum of the header (R34, C3).
    ChecksumMismatch, BadChecksum, "checksum-mismatch", "the CRC32C does not match the header";
    /// A second CRC32C TLV is there. The two cannot both be right (C12).
    ChecksumTwice, BadChecksum, "checksum-twice", "a second CRC32C TLV";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_error_says_where_and_what() {
        let error = Error::new(Reason::PortLeadingZero, 27);
        assert_eq!(error.to_string(), "invalid PROXY header at byte 27: leading zero in a port");
        assert_eq!((error.reason.code(), error.fault()), ("port-leading-zero", Fault::Malformed));
    }

    #[test]
    fn codes_are_the_names_and_texts_are_unique() {
        let mut texts = HashSet::new();
        for reason in Reason::ALL {
            let name = format!("{reason:?}");
            let code = name.char_indices().fold(String::new(), |code, (at, letter)| match letter {
                'A'..='Z' if at > 0 => code + "-" + &letter.to_ascii_lowercase().to_string(),
                letter => code + &letter.to_ascii_lowercase().to_string(),
            });
            assert_eq!(reason.code(), code);
            assert!(texts.insert(reason.text()), "{code}");
            assert!(!reason.text().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn only_what_has_an_outcome_of_its_own_is_not_malformed() {
        for &reason in Reason::ALL {
            let fault = match reason {
                Reason::BadSignature => Fault::NoHeader,
                Reason::VersionNotAllowed => Fault::VersionNotAllowed,
                Reason::Oversized => Fault::Oversized,
                Reason::ChecksumLength | Reason::ChecksumMismatch | Reason::ChecksumTwice => {
                    Fault::BadChecksum
                }
                _ => Fault::Malformed,
            };
            assert_eq!(reason.fault(), fault, "{reason:?}");
        }
    }
}
