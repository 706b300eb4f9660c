//! A type for each kind of address: the peer's, the client's, the listener's. Here alone `::ffff:a.b.c.d` becomes IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use crate::interface::InterfaceName;
use crate::network::Network;

/// The other end of the connection: a proxy if we trust it, otherwise a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAddr {
    /// An internet address, as accept(2) gives it.
    Ip(SocketAddr),
    /// The name of a UNIX socket. Most peers have none.
    Unix(UnixName),
    /// The number of another address family, or 0 if the kernel does not say who the peer is. Such a peer is never trusted.
    Unknown(u16),
}

/// The name of a UNIX socket: a path, or an abstract name, or empty if it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixName {
    /// The bytes of the path, or of the abstract name without its leading NUL.
    pub bytes: Box<[u8]>,
    /// Whether it is a Linux abstract name.
    pub is_abstract: bool,
}

impl PeerAddr {
    /// The peer's IP address, or `None` if it has none. An IPv4-mapped address becomes IPv4.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().map(|host| host.ip)
    }

    /// The peer's address without its port, or `None` if it has no IP address.
    #[must_use]
    pub fn host(&self) -> Option<Host> {
        match self {
            Self::Ip(address) => Some(Host::from(*address)),
            Self::Unix(_) | Self::Unknown(_) => None,
        }
    }

    /// The peer with this address, if the kernel gives one.
    pub(crate) fn from_kernel(address: Option<SocketAddrAny>) -> Self {
        let family = address.as_ref().map_or(AddressFamily::UNSPEC, SocketAddrAny::address_family);
        match (address, family) {
            (Some(address), AddressFamily::UNIX) => SocketAddrUnix::try_from(address)
                .map_or(Self::Unknown(family.as_raw()), |name| Self::Unix(UnixName::from(&name))),
            (Some(address), _) => {
                SocketAddr::try_from(address).map_or(Self::Unknown(family.as_raw()), Self::Ip)
            }
            (None, _) => Self::Unknown(family.as_raw()),
        }
    }
}

impl From<&SocketAddrUnix> for UnixName {
    fn from(address: &SocketAddrUnix) -> Self {
        match (address.path_bytes(), address.abstract_name()) {
            // A socket without a name reads as one with an empty abstract name.
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
            Self::Ip(address) => Host::from(*address).with_port(address.port(), f),
            Self::Unix(name) => name.fmt(f),
            Self::Unknown(family) => write!(f, "unknown:{family}"),
        }
    }
}

/// An address without its port, and its interface if it is link-local. `Display` writes the interface's name behind it, as
/// `getnameinfo` does: `fe80::1%eth0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Host {
    /// The address. An IPv4-mapped one becomes IPv4, so that IPv4 entries match it.
    pub ip: IpAddr,
    /// The number of the interface, or 0.
    pub scope_id: u32,
}

impl Host {
    fn with_port(self, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(_) => write!(f, "{self}:{port}"),
            IpAddr::V6(_) => write!(f, "[{self}]:{port}"),
        }
    }
}

impl From<SocketAddr> for Host {
    fn from(address: SocketAddr) -> Self {
        let scope_id = match address {
            SocketAddr::V6(address) => address.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { ip: address.ip().to_canonical(), scope_id }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        let Some(number) = NonZeroU32::new(self.scope_id) else { return Ok(()) };
        match InterfaceName::of(number) {
            Some(name) => write!(f, "%{name}"),
            // The interface no longer exists.
            None => write!(f, "%{number}"),
        }
    }
}

/// The client to which rules and limits apply: the one that the header names, or the peer if it is served directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientAddr {
    /// The address. An IPv4-mapped one becomes IPv4, so that IPv4 entries match it.
    pub ip: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The number of the interface of a link-local peer. It is 0 for other peers, and for clients that a header names.
    pub scope_id: u32,
}

impl ClientAddr {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let Host { ip, scope_id } = Host::from(address);
        Self { ip, port: address.port(), scope_id }
    }

    /// The address without the port.
    #[must_use]
    pub fn host(self) -> Host {
        Host { ip: self.ip, scope_id: self.scope_id }
    }

    /// Whether a connection can come from this address.
    ///
    /// None can come from the unspecified address, from a multicast address or from the IPv4 broadcast address. A header that
    /// names one of these is malformed.
    pub(crate) fn can_be_a_client(self) -> bool {
        !(self.ip.is_unspecified() || self.ip.is_multicast() || self.ip == IpAddr::V4(Ipv4Addr::BROADCAST))
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host().with_port(self.port, f)
    }
}

/// The network that counts as one client for limits: an IPv4 address, or an IPv6 prefix (an IPv6 client has a whole /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpNet);

impl ClientNetwork {
    pub(crate) fn of(ip: IpAddr, ipv6_prefix: u8) -> Self {
        let prefix = if ip.is_ipv4() { 32 } else { ipv6_prefix };
        // A prefix that is longer than the address makes the address alone the client.
        Self(IpNet::new(ip, prefix).map_or(ip.into(), |network| network.trunc()))
    }
}

impl From<ClientNetwork> for Network {
    fn from(client: ClientNetwork) -> Self {
        Self::of(client.0)
    }
}

/// The address of a listener, or of our end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalAddr {
    /// An internet address.
    Ip(SocketAddr),
    /// A UNIX socket's name.
    Unix(UnixName),
}

impl LocalAddr {
    /// `None` for an address of a family that is not served.
    pub(crate) fn from_kernel(address: SocketAddrAny) -> Option<Self> {
        match PeerAddr::from_kernel(Some(address)) {
            PeerAddr::Ip(address) => Some(Self::Ip(address)),
            PeerAddr::Unix(name) => Some(Self::Unix(name)),
            PeerAddr::Unknown(_) => None,
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An IPv4-mapped address stays as it is, or the socket would look like an IPv4 one.
            Self::Ip(address) => {
                Host { ip: address.ip(), ..Host::from(*address) }.with_port(address.port(), f)
            }
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
        assert_eq!(Network::from(of("2001:db8::1", 64)).to_string(), "2001:db8::/64");
        assert_eq!(Network::from(of("192.0.2.1", 64)).to_string(), "192.0.2.1");
        assert_eq!(of("2001:db8::1", 200), of("2001:db8::1", 128));
    }

    #[test]
    fn peers_are_written_unmapped() {
        let peer = PeerAddr::Ip("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(peer.to_string(), "192.0.2.1:80");
        assert_eq!(peer.ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(PeerAddr::Unix(UnixName::default()).to_string(), "unix:");
        assert_eq!(PeerAddr::Ip("[2001:db8::1]:80".parse().unwrap()).to_string(), "[2001:db8::1]:80");
        let local = LocalAddr::Ip("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(local.to_string(), "[::ffff:192.0.2.1]:80");
    }

    #[test]
    fn a_scope_is_written_as_the_interface_it_is() {
        let lo = "lo".parse::<InterfaceName>().unwrap().number().unwrap();
        for (number, expected) in
            [(lo.get(), "[fe80::1%lo]:80"), (u32::MAX, "[fe80::1%4294967295]:80"), (0, "[fe80::1]:80")]
        {
            let address = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, number).into();
            assert_eq!(PeerAddr::Ip(address).to_string(), expected);
            assert_eq!(LocalAddr::Ip(address).to_string(), expected);
            assert_eq!(ClientAddr::new(address).to_string(), expected);
        }
    }

    #[test]
    fn a_peer_is_what_the_kernel_says_it_is_and_nothing_else() {
        use rustix::net::netlink::SocketAddrNetlink;
        let ip: SocketAddr = "192.0.2.1:1".parse().unwrap();
        assert_eq!(PeerAddr::from_kernel(Some(ip.into())), PeerAddr::Ip(ip));
        let nameless = SocketAddrUnix::new_unnamed();
        assert_eq!(PeerAddr::from_kernel(Some(nameless.into())), PeerAddr::Unix(UnixName::default()));
        assert_eq!(PeerAddr::from_kernel(None), PeerAddr::Unknown(0));
        let other = PeerAddr::from_kernel(Some(SocketAddrNetlink::new(1, 1).into()));
        assert_eq!(other, PeerAddr::Unknown(16));
        assert_eq!((other.ip(), other.to_string()), (None, "unknown:16".into()));
        assert_eq!(LocalAddr::from_kernel(SocketAddrNetlink::new(1, 1).into()), None);
    }
}
