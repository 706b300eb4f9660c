//! A set of addresses and networks, shared by whoever holds it: for trust, for allow and for deny.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// A thread-safe set of networks; clones share one set, so that a change is seen by every listener at once.
///
/// A prefix trie for each family: adding, removing and looking up take at most as many steps as an address has bits,
/// whatever the size of the set. IPv4-mapped IPv6 addresses and networks are folded into IPv4.
#[derive(Clone, Default)]
pub struct AddressSet(Arc<RwLock<Networks>>);

#[derive(Default)]
struct Networks {
    inet: PrefixMap<Ipv4Net, Option<Instant>>,
    inet6: PrefixMap<Ipv6Net, Option<Instant>>,
    /// Entries that end, soonest first.
    expiries: BTreeSet<(Instant, IpNet)>,
}

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    text: String,
    host_bits: bool,
}

impl AddressSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `network`, for ever or until `expires`; what was there is replaced.
    pub fn add(&self, network: Network, expires: Option<Instant>) {
        self.write().insert(network.0, expires);
    }

    /// Removes exactly this entry; says whether it was there.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn discard(&self, network: Network) -> bool {
        self.write().remove(network.0)
    }

    /// Whether an entry that has not expired covers `ip`.
    #[must_use]
    pub fn contains(&self, ip: IpAddr, now: Instant) -> bool {
        self.covers(Network(IpNet::from(ip.to_canonical())), now)
    }

    /// Whether one entry that has not expired covers the whole network.
    #[must_use]
    pub fn covers(&self, network: Network, now: Instant) -> bool {
        self.read_at(now).covers(network.0)
    }

    /// How many entries have not expired.
    #[must_use]
    pub fn len(&self, now: Instant) -> usize {
        let networks = self.read_at(now);
        networks.inet.len() + networks.inet6.len()
    }

    /// The entries that have not expired, IPv4 first, in the order of their addresses.
    #[must_use]
    pub fn entries(&self, now: Instant) -> Vec<Network> {
        let networks = self.read_at(now);
        let inet = networks.inet.keys().map(|network| Network(IpNet::V4(network)));
        inet.chain(networks.inet6.keys().map(|network| Network(IpNet::V6(network)))).collect()
    }

    /// Whether both are the same set, not merely equal ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Without what has expired: the longest match may have ended where a shorter one has not.
    fn read_at(&self, now: Instant) -> RwLockReadGuard<'_, Networks> {
        let networks = self.read();
        if !networks.has_expired(now) {
            return networks;
        }
        drop(networks);
        self.write().purge(now);
        self.read()
    }

    // A panic while the lock is held would be a bug here; the trie is still a trie, and the listeners go on.
    fn read(&self) -> RwLockReadGuard<'_, Networks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Networks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Network> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let mut set = Networks::default();
        for network in networks {
            set.insert(network.0, None);
        }
        Self(Arc::new(RwLock::new(set)))
    }
}

impl fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.read();
        write!(f, "AddressSet({} entries)", networks.inet.len() + networks.inet6.len())
    }
}

impl Networks {
    fn insert(&mut self, network: IpNet, expires: Option<Instant>) {
        let replaced = match network {
            IpNet::V4(network) => self.inet.insert(network, expires),
            IpNet::V6(network) => self.inet6.insert(network, expires),
        };
        if let Some(Some(before)) = replaced {
            self.expiries.remove(&(before, network));
        }
        if let Some(expires) = expires {
            self.expiries.insert((expires, network));
        }
    }

    fn remove(&mut self, network: IpNet) -> bool {
        let removed = match network {
            IpNet::V4(network) => self.inet.remove(&network),
            IpNet::V6(network) => self.inet6.remove(&network),
        };
        if let Some(Some(expires)) = removed {
            self.expiries.remove(&(expires, network));
        }
        removed.is_some()
    }

    fn covers(&self, network: IpNet) -> bool {
        match network {
            IpNet::V4(network) => self.inet.get_lpm(&network).is_some(),
            IpNet::V6(network) => self.inet6.get_lpm(&network).is_some(),
        }
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.expiries.first().is_some_and(|(expires, _)| *expires <= now)
    }

    fn purge(&mut self, now: Instant) {
        while let Some((expires, network)) = self.expiries.first().copied() {
            if expires > now {
                return;
            }
            self.remove(network);
        }
    }
}

/// An address or a network without host bits, IPv4-mapped ones folded into IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = |host_bits| NetworkError { text: text.chars().take(64).collect(), host_bits };
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| error(false))?,
        };
        if network.trunc() != network {
            return Err(error(true));
        }
        Ok(Self(unmapped(network)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(f);
        }
        self.0.fmt(f)
    }
}

fn unmapped(network: IpNet) -> IpNet {
    if let (IpAddr::V4(address), Some(prefix)) =
        (network.network().to_canonical(), network.prefix_len().checked_sub(96))
        && let IpNet::V6(_) = network
        && let Ok(network) = Ipv4Net::new(address, prefix)
    {
        return IpNet::V4(network);
    }
    network
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host_bits {
            write!(f, "{:?} has host bits set", self.text)
        } else {
            write!(f, "{:?} is not an IPv4 or IPv6 address or network", self.text)
        }
    }
}

impl std::error::Error for NetworkError {}

/// How far off an expiry may lie; more would overflow the clock on some systems.
pub const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn set(texts: &[&str]) -> AddressSet {
        texts.iter().map(|text| network(text)).collect()
    }

    #[test]
    fn addresses_match_the_networks_around_them() {
        let now = Instant::now();
        let set = set(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"]);
        let cases = [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("::1", true),
        ];
        for (ip, expected) in cases {
            assert_eq!(set.contains(ip.parse().unwrap(), now), expected, "{ip}");
        }
        assert!(set.covers(network("10.1.0.0/16"), now));
        assert!(!set.covers(network("0.0.0.0/0"), now));
    }

    #[test]
    fn mapped_networks_are_ipv4_networks() {
        assert_eq!(network("::ffff:10.0.0.0/104").to_string(), "10.0.0.0/8");
        assert_eq!(network("::ffff:10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(network("::/0").to_string(), "::/0");
    }

    #[test]
    fn texts_that_are_no_network() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "fe80::1%eth0",
            "host",
            "2001:db8::1/32",
            "1.2.3.4/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!(
            "10.0.0.1/8".parse::<Network>().unwrap_err().to_string(),
            "\"10.0.0.1/8\" has host bits set"
        );
    }

    #[test]
    fn an_entry_ends_where_a_wider_one_does_not() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let set = set(&["10.0.0.0/8"]);
        set.add(network("10.0.0.1"), Some(later));
        set.add(network("192.0.2.1"), Some(later));
        let contains = |ip: &str, now| set.contains(ip.parse().unwrap(), now);
        assert!(contains("192.0.2.1", start));
        assert_eq!(set.len(start), 3);
        assert!(!contains("192.0.2.1", later));
        assert!(contains("10.0.0.1", later));
        assert_eq!(set.len(later), 1);
    }

    #[test]
    fn adding_again_replaces_the_expiry() {
        let start = Instant::now();
        let set = AddressSet::new();
        set.add(network("192.0.2.1"), Some(start + Duration::from_secs(1)));
        set.add(network("192.0.2.1"), None);
        assert!(set.contains("192.0.2.1".parse().unwrap(), start + Duration::from_secs(5)));
        assert!(set.discard(network("192.0.2.1")));
        assert!(!set.discard(network("192.0.2.1")));
        assert_eq!(set.len(start), 0);
    }

    #[test]
    fn clones_share_their_entries() {
        let set = AddressSet::new();
        let clone = set.clone();
        clone.add(network("192.0.2.1"), None);
        assert!(set.contains("192.0.2.1".parse().unwrap(), Instant::now()));
        assert!(set.is_same(&clone));
        assert_eq!(set.entries(Instant::now()), [network("192.0.2.1")]);
    }
}
