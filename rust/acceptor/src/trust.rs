//! Whether we trust the peer, and therefore how its connection begins (R3, R4).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::addresses::PeerAddr;
use crate::cause::Cause;
use crate::network::Network;
use crate::options::{Options, ProxyProtocol, Untrusted};

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Approach {
    /// With a header. Without one it is refused.
    Header,
    /// With a header, if its first byte can start one. Otherwise it is served without one.
    PerhapsHeader,
    /// Without a header. If one is there already, a proxy is set up wrongly, and the connection is refused.
    NoHeader,
    /// Like an ordinary client's. Its bytes are never read as a header.
    Direct,
    /// Not at all: the connection is refused as `untrusted`.
    Refuse,
}

/// A function that says for each peer how its connection begins: see [`Options::policy`].
#[derive(Clone)]
pub struct PeerPolicy(Arc<dyn Fn(&PeerAddr) -> Approach + Send + Sync>);

impl PeerPolicy {
    /// A policy that calls `approach` for every connection, in the thread that accepts. So `approach` must not block.
    pub fn new(approach: impl Fn(&PeerAddr) -> Approach + Send + Sync + 'static) -> Self {
        Self(Arc::new(approach))
    }
}

impl fmt::Debug for PeerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPolicy").finish_non_exhaustive()
    }
}

/// Says how the connection of `peer` begins, or why it is refused at once.
pub(crate) fn approach(peer: &PeerAddr, options: &Options, now: Instant) -> Result<Approach, Cause> {
    if let Some(PeerPolicy(policy)) = &options.policy {
        let approach = policy(peer);
        return if approach == Approach::Refuse { Err(Cause::RefusedByPolicy) } else { Ok(approach) };
    }
    if options.proxy_protocol == ProxyProtocol::Off {
        return Ok(Approach::NoHeader);
    }
    if !is_trusted(peer, options, now) {
        return match options.untrusted {
            Untrusted::Refuse => Err(untrusted(peer, options, now)),
            Untrusted::Direct => Ok(Approach::Direct),
        };
    }
    match options.proxy_protocol {
        ProxyProtocol::Optional => Ok(Approach::PerhapsHeader),
        _ => Ok(Approach::Header),
    }
}

/// Whether `peer` is a proxy that we believe. Only the other end of the connection counts, never what a header says.
pub(crate) fn is_trusted(peer: &PeerAddr, options: &Options, now: Instant) -> bool {
    match (peer, &options.trusted) {
        // A peer that reaches a UNIX socket has passed the permissions of its file.
        (PeerAddr::Unix(_), _) | (PeerAddr::Ip(_), None) => true,
        (PeerAddr::Ip(address), Some(trusted)) => trusted.contains(*address, now),
        (PeerAddr::Unknown(_), _) => false,
    }
}

fn untrusted(peer: &PeerAddr, options: &Options, now: Instant) -> Cause {
    let trusted = options.trusted.as_ref();
    let without_scope = peer.host().map(Network::from).filter(Network::has_scope);
    Cause::Untrusted {
        networks: trusted.map_or(0, |trusted| trusted.held(now)),
        without_scope: without_scope.and_then(|peer| trusted?.entry_for(peer.without_scope(), now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_set::AddressSet;
    use crate::addresses::UnixName;

    #[test]
    fn who_is_believed_and_what_follows() {
        use Approach::{Direct, Header, NoHeader, PerhapsHeader};
        use ProxyProtocol::{Off, Optional, Required};
        let trusted: AddressSet = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        let ip = |text: &str| PeerAddr::Ip(text.parse().unwrap());
        let unix = PeerAddr::Unix(UnixName::default());
        let cases = [
            (Required, Untrusted::Refuse, ip("10.0.0.1:1"), Some(Header)),
            (Required, Untrusted::Refuse, ip("[::ffff:10.0.0.1]:1"), Some(Header)),
            (Required, Untrusted::Refuse, ip("192.0.2.1:1"), None),
            (Required, Untrusted::Refuse, PeerAddr::Unknown(40), None),
            (Required, Untrusted::Direct, PeerAddr::Unknown(40), Some(Direct)),
            (Optional, Untrusted::Refuse, PeerAddr::Unknown(0), None),
            (Required, Untrusted::Direct, ip("192.0.2.1:1"), Some(Direct)),
            (Required, Untrusted::Refuse, unix.clone(), Some(Header)),
            (Optional, Untrusted::Refuse, ip("10.0.0.1:1"), Some(PerhapsHeader)),
            (Optional, Untrusted::Refuse, ip("127.0.0.1:1"), None),
            (Optional, Untrusted::Direct, ip("127.0.0.1:1"), Some(Direct)),
            (Off, Untrusted::Refuse, ip("192.0.2.1:1"), Some(NoHeader)),
            (Off, Untrusted::Refuse, unix, Some(NoHeader)),
        ];
        for (proxy_protocol, untrusted, peer, expected) in cases {
            let options =
                Options { proxy_protocol, untrusted, trusted: Some(trusted.clone()), ..Options::default() };
            assert_eq!(
                approach(&peer, &options, Instant::now()).ok(),
                expected,
                "{proxy_protocol:?} {untrusted:?} {peer}"
            );
        }
    }

    #[test]
    fn a_policy_stands_in_place_of_the_other_options() {
        let options = Options::default().trusted(AddressSet::new()).policy(|peer| match peer.ip() {
            Some(ip) if ip.is_loopback() => Approach::Direct,
            Some(_) => Approach::Header,
            None => Approach::Refuse,
        });
        let cases = [
            (PeerAddr::Ip("127.0.0.1:1".parse().unwrap()), Ok(Approach::Direct)),
            (PeerAddr::Ip("192.0.2.1:1".parse().unwrap()), Ok(Approach::Header)),
            (PeerAddr::Unix(UnixName::default()), Err(Cause::RefusedByPolicy)),
        ];
        for (peer, expected) in cases {
            assert_eq!(approach(&peer, &options, Instant::now()), expected, "{peer}");
        }
    }

    #[test]
    fn without_a_list_every_peer_is_believed() {
        let peer = PeerAddr::Ip("192.0.2.1:1".parse().unwrap());
        assert_eq!(approach(&peer, &Options::default(), Instant::now()), Ok(Approach::Header));
        let unknown = PeerAddr::Unknown(40);
        assert!(approach(&unknown, &Options::default(), Instant::now()).is_err());
    }

    #[test]
    fn a_link_local_proxy_is_believed_on_its_interface() {
        let lo = "lo".parse::<crate::interface::InterfaceName>().unwrap().number().unwrap().get();
        let peer = |scope_id| {
            PeerAddr::Ip(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, scope_id).into())
        };
        let by = |entry: &str, scope_id| {
            let options = Options::default().trusted([entry.parse().unwrap()].into_iter().collect());
            approach(&peer(scope_id), &options, Instant::now())
        };
        assert_eq!(by("fe80::1%lo", lo), Ok(Approach::Header));
        let refused = |without_scope: Option<&str>| {
            let without_scope = without_scope.map(|entry| entry.parse().unwrap());
            Err(Cause::Untrusted { networks: 1, without_scope })
        };
        assert_eq!(by("fe80::1%lo", lo + 1), refused(None));
        assert_eq!(by("fe80::1", lo), refused(Some("fe80::1")));
        assert_eq!(by("fe80::/64", lo), refused(Some("fe80::/64")));
    }
}
