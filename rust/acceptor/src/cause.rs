//! Why a connection was refused: the outcome under which it counts, and the facts for the reader of the log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proxyproto_codec::{FirstBytes, Header, Version};

use crate::network::Network;
use crate::outcome::Outcome;
use crate::rate::Rate;

/// Why a connection was refused. Every refusal has a cause, so its text is never empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// The peer is in none of the trusted `networks`.
    Untrusted {
        networks: usize,
        /// An entry that would cover the peer if it had a scope.
        without_scope: Option<Network>,
    },
    /// The policy refuses the peer.
    RefusedByPolicy,
    /// This came instead of a header.
    MissingHeader(FirstBytes),
    /// A header came to a port that is set to have none.
    UnexpectedHeader(FirstBytes),
    /// The codec has refused the header.
    Invalid(proxyproto_codec::Error),
    /// The header names an address that no client can have.
    ImpossibleClient,
    /// `seen` bytes of the header came in time. At least `needed` are missing.
    Timeout { seen: usize, needed: usize, limit: Duration },
    /// The header does not fit into the receive buffer. `size` is in bytes, as the kernel counts them.
    ReceiveBuffer { size: usize },
    /// The peer closed after `seen` bytes of the header. At least `needed` are missing.
    ClosedEarly { seen: usize, needed: usize },
    /// The peer reset the connection while its header was read.
    Reset,
    /// This entry of `deny`, or of the named set that `deny` includes, covers the client.
    Denied { entry: Network, list: Option<Arc<str>> },
    /// None of the `networks` in `allow` covers the client.
    NotAllowed { networks: usize },
    /// `allow` is set, and the client has no IP address.
    NoAddressToAllow,
    /// The client has used up its rate.
    RateLimited { client: Network, rate: Rate },
    /// The client has as many connections open as it may have.
    TooManyFromClient { client: Network, open: usize, most: usize },
    /// The listener has as many connections open as it may have.
    TooMany { open: usize, most: usize },
    /// `require_tls` is set, and the header does not say that the client used TLS.
    TlsRequired(ClientTls),
    /// `require_client_cert` is set, and the header does not say that the client's certificate was verified.
    CertRequired(ClientTls),
    /// It had waited longest for its header when more than `max_pending` waited.
    PendingOverflow { max_pending: usize },
    /// It had waited longest for its header when the process ran out of descriptors.
    NoDescriptors,
    /// The kernel has no memory to watch one more connection.
    NoMemory,
}

/// What is missing about the client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientTls {
    NoHeader,
    /// A header of version 1 cannot say anything about TLS.
    Version1,
    NoTlv,
    /// The client did not use TLS.
    Unused,
    NoCertificate,
    /// The proxy could not verify the certificate. The number is the error of its TLS library.
    NotVerified(u32),
}

impl Cause {
    /// The outcome under which the connection counts.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Untrusted { .. } | Self::RefusedByPolicy => Outcome::Untrusted,
            Self::MissingHeader(_) => Outcome::MissingHeader,
            Self::UnexpectedHeader(_) => Outcome::UnexpectedHeader,
            Self::Invalid(error) => error.fault().into(),
            Self::ImpossibleClient => Outcome::Malformed,
            Self::Timeout { .. } | Self::ReceiveBuffer { .. } => Outcome::Timeout,
            Self::ClosedEarly { .. } | Self::Reset => Outcome::ClosedEarly,
            Self::Denied { .. } | Self::NotAllowed { .. } | Self::NoAddressToAllow => Outcome::Denied,
            Self::RateLimited { .. } => Outcome::RateLimited,
            Self::TooManyFromClient { .. } => Outcome::TooManyFromClient,
            Self::TooMany { .. } => Outcome::TooMany,
            Self::TlsRequired(_) => Outcome::TlsRequired,
            Self::CertRequired(_) => Outcome::CertRequired,
            Self::PendingOverflow { .. } | Self::NoDescriptors | Self::NoMemory => Outcome::PendingOverflow,
        }
    }

    /// Whether the connection was a probe. Balancers and monitors connect every few seconds to see that the port is open, and
    /// that is no news.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::ClosedEarly { seen: 0, .. } | Self::Reset)
    }
}

impl ClientTls {
    /// What `header` says about the client's TLS.
    pub(crate) fn of<B: AsRef<[u8]>>(header: Option<&Header<B>>) -> Self {
        let Some(header) = header else { return Self::NoHeader };
        match header.ssl() {
            None if header.version() == Version::V1 => Self::Version1,
            None => Self::NoTlv,
            Some(ssl) if !ssl.client_tls() => Self::Unused,
            Some(ssl) if !(ssl.client_cert_conn() || ssl.client_cert_sess()) => Self::NoCertificate,
            Some(ssl) => Self::NotVerified(ssl.verify()),
        }
    }
}

impl fmt::Display for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("there is no header that could tell of the client's TLS"),
            Self::Version1 => f.write_str("a header of version 1 cannot tell of the client's TLS"),
            Self::NoTlv => f.write_str("the header tells nothing of the client's TLS (no SSL TLV)"),
            Self::Unused => f.write_str("the header says that the client did not use TLS"),
            Self::NoCertificate => f.write_str("the header says that the client gave no certificate"),
            Self::NotVerified(number) => {
                write!(
                    f,
                    "the header says that the proxy could not verify the client's certificate (error {number})"
                )
            }
        }
    }
}
