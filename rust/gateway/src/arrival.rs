//! What is known of a connection before its first byte of MQTT.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use proxyproto_acceptor::{Header, LocalAddr, PeerAddr};

use crate::facts::Facts;

/// A connection that a listener has let in: its client, and what its proxy and its channel say about the client.
#[derive(Debug)]
#[non_exhaustive]
pub struct Arrival {
    /// The id of the connection, and of its session: in events, and as `UNIQUE_ID` in the header that goes upstream.
    pub session_id: SessionId,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The header; `None` for a connection that is served without one.
    pub header: Option<Header>,
    /// The other end of the connection itself: the proxy, or the client where it is served directly.
    pub peer: PeerAddr,
    /// Our end of the connection itself.
    pub local: LocalAddr,
    /// When it was accepted.
    pub at: SystemTime,
    /// What the handshake of its channel has shown of the client.
    pub facts: Facts,
}

impl Arrival {
    /// The client's address: from a trusted proxy's HTTP header, else from the PROXY header, else the peer's.
    ///
    /// It is `0.0.0.0:0` if none of them is an internet address, as for a UNIX socket without a header.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        let named = || self.header.as_ref()?.source()?.socket_addr();
        let peer = || match self.peer {
            PeerAddr::Ip(peer) => Some(peer),
            _ => None,
        };
        self.facts.forwarded.or_else(named).or_else(peer).map_or(NOBODY, canonical)
    }

    /// The address that the client has connected to: from the header, else our own; `0.0.0.0:0` for a UNIX socket.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        let named = || self.header.as_ref()?.destination()?.socket_addr();
        let local = || match self.local {
            LocalAddr::Ip(local) => Some(local),
            _ => None,
        };
        named().or_else(local).map_or(NOBODY, canonical)
    }

    /// Whether the proxy speaks for itself and not for a client (LOCAL, UNKNOWN).
    #[must_use]
    pub fn is_proxys_own(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.source().is_none())
    }
}

/// A random id (UUID, version 4). `Display` writes it in groups: `0d2ab1de-...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        // Linux gives up to 256 bytes whole once it has booted. Were it to fail, the token is still unique.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// An IPv4 address that the kernel shows on an IPv6 socket is an IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (ip @ IpAddr::V4(_), SocketAddr::V6(_)) => SocketAddr::new(ip, address.port()),
        _ => address,
    }
}

pub(crate) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn arrival(header: Option<Header>, peer: &str, local: &str) -> Arrival {
        Arrival {
            session_id: SessionId([0xab; 16]),
            listener: "tcp".into(),
            header,
            peer: PeerAddr::Ip(peer.parse().unwrap()),
            local: LocalAddr::Ip(local.parse().unwrap()),
            at: SystemTime::UNIX_EPOCH,
            facts: Facts::default(),
        }
    }

    fn v1(source: &str, destination: &str) -> Header {
        let [source, destination] = [source, destination].map(|text| text.parse::<SocketAddr>().unwrap());
        Header::v1(source.into(), destination.into()).unwrap()
    }

    #[test]
    fn the_client_is_whom_the_nearest_word_names() {
        let named = Some(v1("192.0.2.1:5", "198.51.100.1:1883"));
        let mut arrival = arrival(named, "10.0.0.9:4", "10.0.0.1:1883");
        let both = |arrival: &Arrival| (arrival.client().to_string(), arrival.destination().to_string());
        assert_eq!(both(&arrival), ("192.0.2.1:5".into(), "198.51.100.1:1883".into()));
        assert!(!arrival.is_proxys_own());
        arrival.header = Some(Header::unknown());
        assert_eq!(both(&arrival), ("10.0.0.9:4".into(), "10.0.0.1:1883".into()));
        assert!(arrival.is_proxys_own());
        arrival.facts.forwarded = Some("203.0.113.9:0".parse().unwrap());
        assert_eq!(arrival.client().to_string(), "203.0.113.9:0");
        arrival.facts.forwarded = None;
        arrival.peer = PeerAddr::Ip("[::ffff:10.0.0.9]:4".parse().unwrap());
        arrival.local = LocalAddr::Ip("[::ffff:10.0.0.1]:1883".parse().unwrap());
        assert_eq!(both(&arrival), ("10.0.0.9:4".into(), "10.0.0.1:1883".into()));
        arrival.peer = PeerAddr::Unix(proxyproto_acceptor::UnixName::default());
        assert_eq!(arrival.client(), NOBODY);
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        let (one, other) = (SessionId::random().to_string(), SessionId::random().to_string());
        assert_ne!(one, other);
        let groups: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
    }
}
