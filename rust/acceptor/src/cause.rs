//! Why a connection was refused: the outcome it counts under, and the facts that whoever reads the log wants to know.

use std::fmt;
use std::time::Duration;

use proxyproto_codec::{FirstBytes, Header, Version};

use crate::network::Network;
use crate::outcome::Outcome;
use crate::rate::Rate;

/// Why a connection was refused. A connection that is refused has one, so nothing that tells of it is empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cause {
    /// The peer is not one of the trusted, which are so many networks.
    Untrusted {
        networks: usize,
        /// An entry that would be the peer's if it had the scope.
        without_scope: Option<Network>,
    },
    /// The policy refuses the peer.
    RefusedByPolicy,
    /// What came instead of a header.
    MissingHeader(FirstBytes),
    /// What came where none should.
    UnexpectedHeader(FirstBytes),
    /// What the codec says, with its byte.
    Invalid(proxyproto_codec::Error),
    /// The header names an address that nobody can have.
    ImpossibleClient,
    /// Of the header `seen` bytes came in time, and at least `needed` did not.
    Timeout { seen: usize, needed: usize, limit: Duration },
    /// The header does not fit into the receive buffer, which has so many bytes as the kernel counts them.
    ReceiveBuffer { size: usize },
    /// The end came after `seen` bytes of the header, and at least `needed` before its own.
    ClosedEarly { seen: usize, needed: usize },
    /// The peer has reset the connection when its header was read.
    Reset,
    /// The entry of `deny` that is the client's.
    Denied(Network),
    /// `allow` has so many networks, and none is the client's.
    NotAllowed { networks: usize },
    /// There is a list of who may come, and the client is at a UNIX socket.
    NoAddressToAllow,
    /// The client has used up its rate.
    RateLimited { client: Network, rate: Rate },
    /// The client has so many connections.
    TooManyFromClient { client: Network, open: usize, most: usize },
    /// The listener has so many connections.
    TooMany { open: usize, most: usize },
    /// What is known of the client's TLS is not enough.
    TlsRequired(ClientTls),
    /// What is known of the client's certificate is not enough.
    CertRequired(ClientTls),
    /// It had waited longest for its header when more than `max_pending` waited.
    PendingOverflow { max_pending: usize },
    /// It waited longest when the process ran out of descriptors.
    NoDescriptors,
    /// The kernel has no memory to watch one more.
    NoMemory,
}

/// What a header says of the client's TLS, where that is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientTls {
    NoHeader,
    /// Version 1 has no place for it.
    Version1,
    NoTlv,
    /// The client did not use it.
    Unused,
    NoCertificate,
    /// The proxy could not verify the certificate: its library's number for why.
    NotVerified(u32),
}

impl Cause {
    /// What the connection counts under.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Untrusted { .. } | Self::RefusedByPolicy => Outcome::Untrusted,
            Self::MissingHeader(_) => Outcome::MissingHeader,
            Self::UnexpectedHeader(_) => Outcome::UnexpectedHeader,
            Self::Invalid(error) => error.fault().into(),
            Self::ImpossibleClient => Outcome::Malformed,
            Self::Timeout { .. } | Self::ReceiveBuffer { .. } => Outcome::Timeout,
            Self::ClosedEarly { .. } | Self::Reset => Outcome::ClosedEarly,
            Self::Denied(_) | Self::NotAllowed { .. } | Self::NoAddressToAllow => Outcome::Denied,
            Self::RateLimited { .. } => Outcome::RateLimited,
            Self::TooManyFromClient { .. } => Outcome::TooManyFromClient,
            Self::TooMany { .. } => Outcome::TooMany,
            Self::TlsRequired(_) => Outcome::TlsRequired,
            Self::CertRequired(_) => Outcome::CertRequired,
            Self::PendingOverflow { .. } | Self::NoDescriptors | Self::NoMemory => Outcome::PendingOverflow,
        }
    }

    /// Balancers and monitors open a port to see that it is open, every few seconds. Not a word about that.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::ClosedEarly { seen: 0, .. } | Self::Reset)
    }
}

impl ClientTls {
    /// What `header` says.
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
