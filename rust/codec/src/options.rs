//! What a receiver accepts: the versions, the largest header, and the named leniencies. All leniencies are
//! off by default.

use core::fmt;

use crate::Version;

/// How strict to be. The default reads both versions strictly and accepts at most 4096 bytes.
///
/// ```
/// use proxyproto_codec::{Options, Versions};
///
/// let options = Options::new(Versions::V1, 4096)?.allow_mixed_families(true);
/// # Ok::<_, proxyproto_codec::InvalidMaxHeaderSize>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The versions to accept (R7).
    pub versions: Versions,
    /// The longest header to accept, in bytes. A longer version 2 header is refused at its length field. A
    /// version 1 line is never longer than 107 bytes (R17), so only a limit below 107 affects it.
    pub max_header_size: MaxHeaderSize,
    /// Bends R13: the two addresses of a version 1 line may be of different families. Each is read by its own
    /// text.
    ///
    /// nginx asks for it: behind its `real_ip` module it writes `PROXY TCP4 192.0.2.4 2603::1 ...`. The
    /// header's family is then the announced one, and each address says its own. Text that is an address of
    /// neither family stays refused.
    pub allow_mixed_families: bool,
    /// Refuses a PROXY command that names no client: `UNKNOWN` (R10), or UNSPEC as family or transport (C5;
    /// R26 permits accepting and refusing).
    ///
    /// It is for receivers that need a client's address. LOCAL, by which the proxy speaks for itself, stays
    /// accepted (R23).
    pub reject_unspec: bool,
    /// Bends our reading of broken TLVs (C8, C9, C10): the header is accepted with the TLVs before the break.
    /// An overlong `UNIQUE_ID` and a broken SSL TLV stay among the TLVs but have no view.
    ///
    /// It is for senders that pad the header with something other than NOOP; many receivers never look at the
    /// TLVs. A CRC32C that is wrong, malformed or there twice stays refused (R34).
    pub ignore_malformed_tlvs: bool,
}

impl Options {
    /// Strict options for these versions and headers of at most `max_header_size` bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidMaxHeaderSize`] if it is less than 16 or more than 65551.
    pub const fn new(versions: Versions, max_header_size: usize) -> Result<Self, InvalidMaxHeaderSize> {
        match MaxHeaderSize::new(max_header_size) {
            Ok(max_header_size) => Ok(Self {
                versions,
                max_header_size,
                allow_mixed_families: false,
                reject_unspec: false,
                ignore_malformed_tlvs: false,
            }),
            Err(error) => Err(error),
        }
    }

    /// Sets the versions to accept.
    #[must_use]
    pub const fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Sets the longest header to accept.
    #[must_use]
    pub const fn max_header_size(mut self, max_header_size: MaxHeaderSize) -> Self {
        self.max_header_size = max_header_size;
        self
    }

    /// Sets whether the two addresses of a version 1 line may be of different families.
    #[must_use]
    pub const fn allow_mixed_families(mut self, allow: bool) -> Self {
        self.allow_mixed_families = allow;
        self
    }

    /// Sets whether a PROXY command that names no client is refused.
    #[must_use]
    pub const fn reject_unspec(mut self, reject: bool) -> Self {
        self.reject_unspec = reject;
        self
    }

    /// Sets whether a header with a broken TLV is accepted with the TLVs before it.
    #[must_use]
    pub const fn ignore_malformed_tlvs(mut self, ignore: bool) -> Self {
        self.ignore_malformed_tlvs = ignore;
        self
    }
}

/// Which versions to accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Versions {
    /// Both versions, as R7 recommends.
    #[default]
    Both,
    /// The text format only.
    V1,
    /// The binary format only.
    V2,
}

impl Versions {
    /// Whether `version` is accepted.
    #[must_use]
    pub const fn allow(self, version: Version) -> bool {
        matches!((self, version), (Self::Both, _) | (Self::V1, Version::V1) | (Self::V2, Version::V2))
    }
}

/// The longest header to accept, in bytes: 16 to 65551, by default 4096.
///
/// The protocol allows 65551. No known sender needs more than a certificate's few thousand, and each pending
/// connection of a stranger may hold this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaxHeaderSize(u32);

impl MaxHeaderSize {
    /// The smallest useful limit: the fixed part of version 2, which is a whole LOCAL header.
    pub const MIN: usize = 16;
    /// The longest header that a length of two bytes can express (R28).
    pub const MAX: usize = 16 + 0xffff;

    /// A limit of `bytes`.
    ///
    /// # Errors
    ///
    /// [`InvalidMaxHeaderSize`] if it is less than 16 or more than 65551.
    pub const fn new(bytes: usize) -> Result<Self, InvalidMaxHeaderSize> {
        if Self::MIN <= bytes && bytes <= Self::MAX {
            #[expect(clippy::cast_possible_truncation, reason = "at most MAX")]
            Ok(Self(bytes as u32))
        } else {
            Err(InvalidMaxHeaderSize(bytes))
        }
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Default for MaxHeaderSize {
    fn default() -> Self {
        Self(4096)
    }
}

/// A `max_header_size` outside the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMaxHeaderSize(usize);

impl fmt::Display for InvalidMaxHeaderSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (MaxHeaderSize::MIN, MaxHeaderSize::MAX);
        write!(f, "max_header_size must be between {min} and {max} bytes, not {}", self.0)
    }
}

impl core::error::Error for InvalidMaxHeaderSize {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_header_size_is_what_a_header_can_be() {
        for size in [16, 107, 4096, 65551] {
            assert_eq!(MaxHeaderSize::new(size).map(MaxHeaderSize::get), Ok(size));
            assert_eq!(Options::new(Versions::V2, size).unwrap().max_header_size.get(), size);
        }
        for size in [0, 15, 65552, usize::MAX] {
            let error = Options::new(Versions::Both, size).unwrap_err();
            let text = format!("max_header_size must be between 16 and 65551 bytes, not {size}");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn the_default_is_strict() {
        assert_eq!(Ok(Options::default()), Options::new(Versions::Both, 4096));
        let Options { allow_mixed_families, reject_unspec, ignore_malformed_tlvs, .. } = Options::default();
        assert!(!allow_mixed_families && !reject_unspec && !ignore_malformed_tlvs);
    }

    #[test]
    fn versions_allow_what_they_say() {
        let allowed = |versions: Versions| [Version::V1, Version::V2].map(|version| versions.allow(version));
        assert_eq!(allowed(Versions::Both), [true, true]);
        assert_eq!(allowed(Versions::V1), [true, false]);
        assert_eq!(allowed(Versions::V2), [false, true]);
    }
}
