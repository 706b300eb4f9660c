//! Whose address it is: the peer's, the client's, the listener's; and the one place that unmaps `::ffff:a.b.c.d`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// The other end of the TCP connection: a proxy if we believe it, else a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAddr {
    /// An internet peer, as accept(2) gave it.
    Ip(SocketAddr),
    /// A peer of a UNIX socket; most have no name.
    Unix(UnixName),
}

/// The name of a UNIX socket: a path, an abstract name, or none (empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixName {
    /// The bytes of the path, or of the name without its leading NUL.
    pub bytes: Box<[u8]>,
    /// Whether it is a Linux abstract name.
    pub is_abstract: bool,
}

impl PeerAddr {
    /// The peer's IP address with an IPv4-mapped one unmapped, or `None` for a UNIX socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    pub(crate) fn from_kernel(address: Option<SocketAddrAny>) -> Self {
        let Some(address) = address else { return Self::Unix(UnixName::default()) };
        if let Ok(address) = SocketAddr::try_from(address.clone()) {
            return Self::Ip(address);
        }
        Self::Unix(SocketAddrUnix::try_from(address).map(|name| UnixName::from(&name)).unwrap_or_default())
    }
}

impl From<&SocketAddrUnix> for UnixName {
    fn from(address: &SocketAddrUnix) -> Self {
        match (address.path_bytes(), address.abstract_name()) {
            // The kernel gives a nameless socket no name at all, which reads as an empty abstract one.
            (_, Some(name)) if !name.is_empty() => Self { bytes: name.into(), is_abstract: true },
            (Some(path), None) => Self { bytes: path.into(), is_abstract: false },
            _ => Self::default(),
        }
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_abstract { "unix:@" } else { "unix:" };
        write!(f, "{prefix}{}", self.bytes.escape_ascii())
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => {
                write!(f, "{}", SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Self::Unix(name) => name.fmt(f),
        }
    }
}

/// The client that a header names, or the TCP peer where it is served directly: what rules and limits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr {
    /// With an IPv4-mapped address unmapped, so that IPv4 entries match it.
    pub ip: IpAddr,
    /// The client's port.
    pub port: u16,
}

impl ClientAddr {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { ip: address.ip().to_canonical(), port: address.port() }
    }

    /// Whether anybody can have this address as the source of a connection.
    ///
    /// The unspecified address, multicast and the IPv4 broadcast address cannot; a header that names one is malformed.
    pub(crate) fn can_be_a_client(self) -> bool {
        !(self.ip.is_unspecified() || self.ip.is_multicast() || self.ip == IpAddr::V4(Ipv4Addr::BROADCAST))
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// The network that limits count as one client: an IPv4 address, or an IPv6 prefix (an IPv6 client has a whole /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    pub(crate) fn of(ip: IpAddr, ipv6_prefix: u8) -> Self {
        match ip {
            IpAddr::V4(_) => Self(ip),
            IpAddr::V6(address) => {
                let host_bits = u32::from(128_u8.saturating_sub(ipv6_prefix));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)))
            }
        }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalAddr {
    /// An internet address.
    Ip(SocketAddr),
    /// A UNIX socket's name.
    Unix(UnixName),
}

impl LocalAddr {
    pub(crate) fn from_kernel(address: SocketAddrAny) -> Self {
        match PeerAddr::from_kernel(Some(address)) {
            PeerAddr::Ip(address) => Self::Ip(address),
            PeerAddr::Unix(name) => Self::Unix(name),
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_nobody_can_be() {
        let cases = [
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
            ("::ffff:0.0.0.0", false),
            ("::ffff:239.1.1.1", false),
            ("127.0.0.1", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("::1", true),
        ];
        for (text, expected) in cases {
            let client = ClientAddr::new(SocketAddr::new(text.parse().unwrap(), 1));
            assert_eq!(client.can_be_a_client(), expected, "{text}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_prefix() {
        let of = |text: &str, prefix| ClientNetwork::of(text.parse().unwrap(), prefix);
        assert_eq!(of("2001:db8::1", 64), of("2001:db8::ffff:1", 64));
        assert_ne!(of("2001:db8::1", 64), of("2001:db8:0:1::1", 64));
        assert_ne!(of("2001:db8::1", 128), of("2001:db8::2", 128));
        assert_eq!(of("2001:db8::1", 0), of("::2", 0));
        assert_ne!(of("192.0.2.1", 64), of("192.0.2.2", 64));
    }

    #[test]
    fn peers_are_written_unmapped() {
        let peer = PeerAddr::Ip("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(peer.to_string(), "192.0.2.1:80");
        assert_eq!(peer.ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(PeerAddr::Unix(UnixName::default()).to_string(), "unix:");
    }
}
