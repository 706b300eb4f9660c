//! What became of a connection. An outcome is the name of a counter, the reason in the log, and a label of metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use proxyproto_codec::Fault;

use crate::header_times::HeaderTimers;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $accepted:literal;)*) => {
        /// What became of a connection. Each connection counts under exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// Every outcome, accepted ones first, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, in lower case. It does not change between versions.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the connection was accepted: served, or closed as a health check.
            #[must_use]
            pub const fn is_accepted(self) -> bool {
                match self { $(Self::$variant => $accepted,)* }
            }
        }
    };
}

outcomes! {
    /// Served with a version 1 header that names the client.
    V1 = "v1", true;
    /// Served with a version 2 header that names the client.
    V2 = "v2", true;
    /// A version 2 LOCAL header: the proxy speaks for itself (R23).
    Local = "local", true;
    /// A header that names nobody: v1 UNKNOWN (R10) or v2 UNSPEC (R26).
    Unknown = "unknown", true;
    /// Served without a header, as the TCP peer.
    Direct = "direct", true;
    /// The peer is not one of the trusted proxies (R4).
    Untrusted = "untrusted", false;
    /// The first bytes are not a PROXY header.
    MissingHeader = "missing-header", false;
    /// A header that breaks the rules, or names an address that cannot be a client's.
    Malformed = "malformed", false;
    /// A header longer than `max_header_size`.
    Oversized = "oversized", false;
    /// A CRC32C that does not match its header (R34).
    BadChecksum = "bad-checksum", false;
    /// No complete header within `header_timeout` (R2).
    Timeout = "timeout", false;
    /// The peer closed before its header was complete (R30).
    ClosedEarly = "closed-early", false;
    /// A header on a port that is set to have none (R3).
    UnexpectedHeader = "unexpected-header", false;
    /// A header of a version that `versions` does not allow.
    VersionNotAllowed = "version-not-allowed", false;
    /// The client's address is in `deny`, or not in `allow`.
    Denied = "denied", false;
    /// The client opens connections faster than its rate allows.
    RateLimited = "rate-limited", false;
    /// The client has as many connections as one client may.
    TooManyFromClient = "too-many-from-client", false;
    /// There are as many connections as the listener may have.
    TooMany = "too-many", false;
    /// `require_tls` is set, and the header does not say that the client used TLS.
    TlsRequired = "tls-required", false;
    /// `require_client_cert` is set, and the header does not say that the client's certificate was verified.
    CertRequired = "cert-required", false;
    /// It had waited longest for its header when more than `max_pending` waited.
    PendingOverflow = "pending-overflow", false;
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoHeader => Self::MissingHeader,
            Fault::VersionNotAllowed => Self::VersionNotAllowed,
            Fault::Oversized => Self::Oversized,
            Fault::BadChecksum => Self::BadChecksum,
            Fault::Malformed => Self::Malformed,
        }
    }
}

/// One counter for each outcome, one for the pauses, and how long headers took.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    pauses: AtomicU64,
    pub(crate) headers: HeaderTimers,
}

impl Counters {
    pub(crate) fn add(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a pause of accepting.
    pub(crate) fn add_pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// The counts in the order of [`Outcome::ALL`].
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL
            .iter()
            .zip(&self.outcomes)
            .map(|(outcome, counter)| (*outcome, counter.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use proxyproto_codec::Reason;

    use super::*;

    #[test]
    fn a_fault_counts_under_the_outcome_of_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Outcome::from(reason.fault()).name(), reason.fault().name(), "{reason}");
        }
    }
}
