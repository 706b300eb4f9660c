//! A set of addresses and networks that its holders share: for `trusted`, `allow` and `deny`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};

use crate::fork::Work;
use crate::network::{Network, Scope};

/// The longest time until an entry expires. A longer one would overflow the clock on some systems.
pub const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many expired entries each change of the set removes. It is more than one, so that they become fewer even if entries are
/// only added. It is small, because lookups wait meanwhile (an entry takes 1-2 us).
const PURGED_BY_A_CHANGE: usize = 8;

/// How many entries are counted or listed before others may change the set. Listing takes longest, up to 3 us an entry.
const STEP: usize = 64;

/// A thread-safe set of networks. Clones share one set, so a change holds for every listener at once.
///
/// It is a prefix trie for each address family: to add, to remove and to look up take at most as many steps as an address has
/// bits, whatever the size of the set. IPv4-mapped IPv6 addresses and networks become IPv4.
///
/// # Expired entries
///
/// An entry that has expired counts as absent at once. It is removed later: each [`add`](Self::add) and
/// [`discard`](Self::discard) removes a few. So no call waits for more than a few removals, however many entries expire at
/// once.
///
/// # Link-local addresses
///
/// A link-local address (`fe80::/10`) means another host on each interface. A peer with such an address also has an interface.
///
/// * With a scope, `fe80::1%eth0` and `fe80::%eth0/64` match peers on the interface that has this name at that moment, and
///   `fe80::1%3` on the interface with this number.
/// * Without a scope, `fe80::1` and `fe80::/10` match addresses without an interface, such as those in headers, but no peer: a
///   trusted proxy must not be another host on another interface. In a set that denies, they match on every interface.
/// * A wider network, such as `::/0`, matches all.
///
/// # Included sets
///
/// A set may [`include`](Self::include) others, each under a name. Looking up an address looks into these too. So a list of
/// 100,000 networks is kept once, however many listeners refuse its clients beside those of their own sets. Counting and
/// listing leave the included sets out, and the sets that these include are not looked into.
#[derive(Clone, Default)]
pub struct AddressSet(Arc<Shared>);

#[derive(Default)]
struct Shared {
    networks: RwLock<Networks>,
    /// How many threads wait to change the set.
    changing: AtomicUsize,
}

#[derive(Default)]
struct Networks {
    inet: PrefixMap<Ipv4Net, Expiry>,
    /// A trie for each scope. None is empty.
    inet6: BTreeMap<Option<Scope>, PrefixMap<Ipv6Net, Expiry>>,
    /// The entries that expire, soonest first.
    expiries: BTreeSet<(Instant, Network)>,
    /// How many expired entries have been removed.
    gone: usize,
    /// Sets that are looked into after this one.
    included: Arc<[(Arc<str>, AddressSet)]>,
}

/// When an entry expires, if it does.
type Expiry = Option<Instant>;

impl AddressSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `network`, for ever or until `expires`. It replaces an entry that is there already.
    pub fn add(&self, network: Network, expires: Option<Instant>) {
        let now = Instant::now();
        let mut networks = self.write();
        networks.purge(now, PURGED_BY_A_CHANGE);
        networks.insert(network, expires, now);
    }

    /// Removes exactly this entry. Returns whether it was there.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn discard(&self, network: Network) -> bool {
        let now = Instant::now();
        let mut networks = self.write();
        networks.purge(now, PURGED_BY_A_CHANGE);
        networks.remove(network, now).is_some_and(|expires| is_live(expires, now))
    }

    /// Looks into these sets too from now on, in this order, and no longer into those that were included before.
    pub fn include(&self, sets: impl IntoIterator<Item = (Arc<str>, AddressSet)>) {
        let included = sets.into_iter().collect();
        self.write().included = included;
    }

    /// Whether one entry covers the whole address or network.
    #[must_use]
    pub fn contains(&self, network: impl Into<Network>, now: Instant) -> bool {
        self.entry_for(network, now).is_some()
    }

    /// An entry that covers the whole address or network.
    #[must_use]
    pub fn entry_for(&self, network: impl Into<Network>, now: Instant) -> Option<Network> {
        let network = network.into();
        self.find(|networks| networks.entry_for(network, now)).map(|(entry, _)| entry)
    }

    /// As [`entry_for`](Self::entry_for), but an entry without a scope matches on every interface: a denied client must not
    /// get in by another interface. With the entry comes the name of the included set that holds it.
    pub(crate) fn denying_entry_for(
        &self,
        network: impl Into<Network>,
        now: Instant,
    ) -> Option<(Network, Option<Arc<str>>)> {
        let network = network.into();
        self.find(|networks| {
            let entry = networks.entry_for(network, now);
            if network.scope.is_none() {
                return entry;
            }
            entry.or_else(|| networks.entry_for(network.without_scope(), now))
        })
    }

    /// What `look` finds in this set, or else in the first included set where it finds something.
    fn find(&self, look: impl Fn(&Networks) -> Option<Network>) -> Option<(Network, Option<Arc<str>>)> {
        let networks = self.read();
        if let Some(entry) = look(&networks) {
            return Some((entry, None));
        }
        if networks.included.is_empty() {
            return None;
        }
        let included = Arc::clone(&networks.included);
        // Two sets may include each other. A thread that held both locks could wait for ever.
        drop(networks);
        included.iter().find_map(|(name, set)| Some((look(&set.read())?, Some(Arc::clone(name)))))
    }

    /// How many entries have not expired.
    ///
    /// It has to count the expired entries that are still there, which takes less than 0.1 us each. Others may change the set
    /// meanwhile, between its steps.
    #[must_use]
    pub fn len(&self, now: Instant) -> usize {
        let (mut expired, mut last, mut gone) = (0_usize, None, None);
        loop {
            self.give_way();
            let _work = Work::begin();
            let networks = self.read();
            // Entries removed since the last step have been counted: those that expired first are removed first.
            expired = expired.saturating_sub(networks.gone.wrapping_sub(gone.unwrap_or(networks.gone)));
            gone = Some(networks.gone);
            let step = networks.expired_after(last, now).take(STEP);
            let before = expired;
            for entry in step {
                expired += 1;
                last = Some(*entry);
            }
            if expired - before < STEP {
                return networks.held() - expired;
            }
        }
    }

    /// The entries that have not expired: IPv4, then IPv6, then those with a scope, by interface; each in the order of their
    /// addresses.
    ///
    /// They are copied in steps, and others may change the set in between. An entry that is added or removed meanwhile may or
    /// may not be among them.
    #[must_use]
    pub fn entries(&self, now: Instant) -> Vec<Network> {
        let (mut entries, mut last) = (Vec::new(), None);
        loop {
            self.give_way();
            let _work = Work::begin();
            let networks = self.read();
            let before = last;
            for (entry, expires) in networks.after(last).take(STEP) {
                last = Some(entry);
                entries.extend(is_live(expires, now).then_some(entry));
            }
            if last == before {
                return entries;
            }
        }
    }

    /// Whether both share one set. Equal sets need not be the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// About how many entries have not expired, for use in a text. It leaves out the expired entries of one step
    /// only.
    pub(crate) fn held(&self, now: Instant) -> usize {
        let networks = self.read();
        networks.held() - networks.expired_after(None, now).take(STEP).count()
    }

    // A panic under the lock would be a bug in this file. Even then the set is usable, and the listeners go on.
    fn read(&self) -> RwLockReadGuard<'_, Networks> {
        self.0.networks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Networks> {
        self.0.changing.fetch_add(1, Ordering::Relaxed);
        let networks = self.0.networks.write().unwrap_or_else(PoisonError::into_inner);
        self.0.changing.fetch_sub(1, Ordering::Relaxed);
        networks
    }

    /// Lets threads go first that wait to change the set. The lock itself is not fair: a thread that takes it again at once is
    /// faster than one that has to wake up, and a change waited 150 ms for a listing of 200,000 entries.
    fn give_way(&self) {
        for _ in 0..1000 {
            if self.0.changing.load(Ordering::Relaxed) == 0 {
                return;
            }
            thread::yield_now();
        }
    }
}

impl FromIterator<Network> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let mut set = Networks::default();
        let now = Instant::now();
        for network in networks {
            set.insert(network, None, now);
        }
        Self(Arc::new(Shared { networks: RwLock::new(set), changing: AtomicUsize::new(0) }))
    }
}

impl fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressSet({} entries)", self.len(Instant::now()))
    }
}

impl Networks {
    fn insert(&mut self, network: Network, expires: Expiry, now: Instant) {
        let replaced = match network.range {
            IpNet::V4(range) => self.inet.insert(range, expires),
            IpNet::V6(range) => self.inet6.entry(network.scope).or_default().insert(range, expires),
        };
        if let Some(Some(before)) = replaced {
            self.forget_expiry(before, network, now);
        }
        if let Some(expires) = expires {
            self.expiries.insert((expires, network));
        }
    }

    fn remove(&mut self, network: Network, now: Instant) -> Option<Expiry> {
        let removed = match network.range {
            IpNet::V4(range) => self.inet.remove(&range),
            IpNet::V6(range) => self.remove_inet6(range, network.scope),
        };
        if let Some(Some(expires)) = removed {
            self.forget_expiry(expires, network, now);
        }
        removed
    }

    fn forget_expiry(&mut self, expires: Instant, network: Network, now: Instant) {
        self.expiries.remove(&(expires, network));
        self.gone = self.gone.wrapping_add(usize::from(expires <= now));
    }

    fn remove_inet6(&mut self, range: Ipv6Net, scope: Option<Scope>) -> Option<Expiry> {
        let trie = self.inet6.get_mut(&scope)?;
        let removed = trie.remove(&range);
        if trie.is_empty() {
            self.inet6.remove(&scope);
        }
        removed
    }

    /// Removes expired entries, at most `most`.
    fn purge(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.expiries.first().copied() {
                Some((expires, network)) if expires <= now => self.remove(network, now),
                _ => return,
            };
        }
    }

    /// The entries that have expired, behind `last`, soonest first.
    fn expired_after(
        &self,
        last: Option<(Instant, Network)>,
        now: Instant,
    ) -> impl Iterator<Item = &(Instant, Network)> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.expiries.range((behind, Bound::Unbounded)).take_while(move |(expires, _)| *expires <= now)
    }

    /// How many entries there are, expired ones included.
    fn held(&self) -> usize {
        self.inet.len() + self.inet6.values().map(PrefixMap::len).sum::<usize>()
    }

    fn entry_for(&self, network: Network, now: Instant) -> Option<Network> {
        let range = match network.range {
            IpNet::V4(range) => return live_cover(&self.inet, &range, now).map(Network::of),
            IpNet::V6(range) => range,
        };
        let on = |scope: Option<Scope>| {
            let entry = live_cover(self.inet6.get(&scope)?, &range, now)?;
            Some(Network { scope, ..Network::of(entry) })
        };
        let Some(scope) = network.scope else { return on(None) };
        let same_interface = || {
            let has_scopes = self.inet6.keys().next_back().is_some_and(Option::is_some);
            // To find the other form of the scope takes system calls.
            has_scopes.then(|| on(Some(scope)).or_else(|| on(Some(scope.other_form()?)))).flatten()
        };
        same_interface().or_else(|| self.wider_than_link_local(range, now))
    }

    /// An entry that covers the link-local `range` and is not link-local itself.
    fn wider_than_link_local(&self, range: Ipv6Net, now: Instant) -> Option<Network> {
        let live = self.inet6.get(&None)?.cover(&range).filter(|(_, expires)| is_live(**expires, now));
        live.map(|(range, _)| Network::of(range)).find(|entry| !entry.is_link_local())
    }

    /// The entries behind `last`, expired ones included.
    fn after(&self, last: Option<Network>) -> impl Iterator<Item = (Network, Expiry)> {
        let inet = match last.map(|last| last.range) {
            None => Some(self.inet.iter()),
            Some(IpNet::V4(last)) => Some(self.inet.iter_from(&last, false)),
            Some(IpNet::V6(_)) => None,
        };
        let (begun, others) = match last {
            Some(Network { range: IpNet::V6(last), scope }) => {
                let begun = self.inet6.get(&scope).map(|trie| (scope, trie.iter_from(&last, false)));
                (begun, self.inet6.range((Bound::Excluded(scope), Bound::Unbounded)))
            }
            _ => (None, self.inet6.range(..)),
        };
        let inet6 = begun.into_iter().chain(others.map(|(scope, trie)| (*scope, trie.iter())));
        let inet = inet.into_iter().flatten().map(|(range, expires)| (Network::of(range), *expires));
        inet.chain(inet6.flat_map(|(scope, entries)| {
            entries.map(move |(range, expires)| (Network { scope, ..Network::of(range) }, *expires))
        }))
    }
}

fn is_live(expires: Expiry, now: Instant) -> bool {
    expires.is_none_or(|expires| expires > now)
}

/// An entry that covers `range` and has not expired. The longest match may have expired while a shorter one has not.
fn live_cover<P: Prefix>(trie: &PrefixMap<P, Expiry>, range: &P, now: Instant) -> Option<P> {
    let (longest, expires) = trie.get_lpm(range)?;
    if is_live(*expires, now) {
        return Some(longest);
    }
    trie.cover(range).find(|(_, expires)| is_live(**expires, now)).map(|(entry, _)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn included_sets_are_looked_into_and_neither_counted_nor_listed() {
        let now = Instant::now();
        let (own, first, second) =
            (set(&["192.0.2.1"]), set(&["10.0.0.0/8"]), set(&["10.0.0.0/8", "fe80::1"]));
        own.include([("first".into(), first.clone()), ("second".into(), second)]);
        assert!(own.contains(network("10.1.2.3"), now));
        assert!(!own.contains(network("192.0.2.2"), now));
        assert_eq!((own.len(now), texts(&own.entries(now))), (1, vec!["192.0.2.1".to_owned()]));
        let denied = |text: &str| {
            own.denying_entry_for(network(text), now)
                .map(|(entry, list)| format!("{entry} {}", list.as_deref().unwrap_or("-")))
        };
        assert_eq!(denied("192.0.2.1").as_deref(), Some("192.0.2.1 -"));
        assert_eq!(denied("10.1.2.3").as_deref(), Some("10.0.0.0/8 first"));
        assert_eq!(denied("fe80::1%3").as_deref(), Some("fe80::1 second"));
        first.discard(network("10.0.0.0/8"));
        assert_eq!(denied("10.1.2.3").as_deref(), Some("10.0.0.0/8 second"));
        own.include([]);
        assert_eq!(denied("10.1.2.3"), None);
    }

    #[test]
    fn sets_that_include_each_other_are_not_looked_into_in_a_circle() {
        let now = Instant::now();
        let (one, two) = (set(&["192.0.2.1"]), set(&["192.0.2.2"]));
        one.include([("two".into(), two.clone()), ("one".into(), one.clone())]);
        two.include([("one".into(), one.clone())]);
        assert!(one.contains(network("192.0.2.2"), now) && two.contains(network("192.0.2.1"), now));
        assert!(!one.contains(network("192.0.2.3"), now));
        one.include([]);
    }

    fn set(texts: &[&str]) -> AddressSet {
        texts.iter().map(|text| network(text)).collect()
    }

    fn texts(entries: &[Network]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_match_the_networks_around_them() {
        let now = Instant::now();
        let set = set(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"]);
        let cases = [
            ("10.255.0.1", Some("10.0.0.0/8")),
            ("11.0.0.1", None),
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.2", None),
            ("::ffff:10.0.0.1", Some("10.0.0.0/8")),
            ("2001:db8:ffff::1", Some("2001:db8::/32")),
            ("2001:db9::1", None),
            ("::1", Some("::1")),
            ("10.1.0.0/16", Some("10.0.0.0/8")),
            ("0.0.0.0/0", None),
        ];
        for (text, expected) in cases {
            let entry = set.entry_for(network(text), now).map(|entry| entry.to_string());
            assert_eq!(entry.as_deref(), expected, "{text}");
            assert_eq!(set.contains(network(text), now), expected.is_some(), "{text}");
        }
    }

    /// An entry, an address, whether a set with this entry contains the address, and whether it denies it.
    #[test]
    fn a_link_local_address_is_of_its_interface() {
        let number = "lo".parse::<crate::interface::InterfaceName>().unwrap().number().unwrap();
        let other = number.saturating_add(1);
        let cases = [
            ("fe80::1%lo", format!("fe80::1%{number}"), true, true),
            ("fe80::1%lo", "fe80::1%lo".into(), true, true),
            ("fe80::%lo/64", format!("fe80::1%{number}"), true, true),
            ("fe80::1%lo", format!("fe80::2%{number}"), false, false),
            ("fe80::1%lo", format!("fe80::1%{other}"), false, false),
            ("fe80::1%lo", "fe80::1".into(), false, false),
            ("fe80::1%1000000", "fe80::1%1000000".into(), true, true),
            ("fe80::1%1000000", "fe80::1%1000001".into(), false, false),
            ("fe80::1%no-such-0", format!("fe80::1%{number}"), false, false),
            ("fe80::1", format!("fe80::1%{number}"), false, true),
            ("fe80::/10", format!("fe80::1%{number}"), false, true),
            ("fe80::1", "fe80::1".into(), true, true),
            ("fe80::/9", format!("fe80::1%{number}"), true, true),
            ("::/0", format!("fe80::1%{number}"), true, true),
            ("::/0", "fe80::1".into(), true, true),
        ];
        let now = Instant::now();
        for (entry, address, is_member, is_denied) in cases {
            let set = set(&[entry]);
            assert_eq!(set.contains(network(&address), now), is_member, "{address} in {entry}");
            let denying = set.denying_entry_for(network(&address), now);
            assert_eq!(denying.is_some(), is_denied, "{address} denied by {entry}");
        }
        let numbered = set(&[&format!("fe80::1%{number}")]);
        assert!(numbered.contains(network("fe80::1%lo"), now));
    }

    #[test]
    fn an_entry_ends_where_a_wider_one_does_not() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let set = set(&["10.0.0.0/8", "::/0"]);
        set.add(network("10.0.0.1"), Some(later));
        set.add(network("10.0.0.0/24"), Some(later));
        set.add(network("192.0.2.1"), Some(later));
        set.add(network("fe80::1%lo"), Some(later));
        let entry = |text: &str, now| set.entry_for(network(text), now).map(|entry| entry.to_string());
        assert_eq!(entry("192.0.2.1", start).unwrap(), "192.0.2.1");
        assert_eq!(entry("10.0.0.1", start).unwrap(), "10.0.0.1");
        assert_eq!(entry("fe80::1%lo", start).unwrap(), "fe80::1%lo");
        assert_eq!(set.len(start), 6);
        assert_eq!(entry("192.0.2.1", later), None);
        assert_eq!(entry("10.0.0.1", later).unwrap(), "10.0.0.0/8");
        assert_eq!(entry("fe80::1%lo", later).unwrap(), "::/0");
        assert_eq!(set.held(later), 2);
        assert!(!set.discard(network("10.0.0.7")));
        assert_eq!(set.len(later), 2);
    }

    /// A set with `count` entries that have expired, and one that has not.
    fn mostly_expired(count: u32) -> (AddressSet, Instant) {
        let set = set(&["192.0.2.1"]);
        let now = Instant::now();
        for number in 0..count {
            let ip = std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
            set.write().insert(ip.into(), Some(now), now);
        }
        (set, now)
    }

    #[test]
    fn a_look_up_removes_nothing_and_a_change_a_few() {
        let (set, now) = mostly_expired(1000);
        assert!(!set.contains(network("10.0.0.1"), now));
        assert!(set.contains(network("192.0.2.1"), now));
        assert_eq!(set.read().held(), 1001);
        set.add(network("192.0.2.2"), None);
        assert_eq!(set.read().held(), 1002 - PURGED_BY_A_CHANGE);
        assert!(set.discard(network("192.0.2.2")));
        assert_eq!(set.read().held(), 1001 - 2 * PURGED_BY_A_CHANGE);
    }

    #[test]
    fn entries_that_expire_do_not_pile_up_where_others_are_only_added() {
        let (set, now) = mostly_expired(1000);
        for number in 0..1000_u32 {
            let ip = std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + number));
            set.add(ip.into(), Some(now));
        }
        let held = set.read().held();
        assert!(held <= 1 + PURGED_BY_A_CHANGE, "{held} entries");
    }

    #[test]
    fn what_has_expired_is_neither_counted_nor_listed() {
        let (set, now) = mostly_expired(1000);
        assert_eq!(texts(&set.entries(now)), ["192.0.2.1"]);
        let (set, now) = mostly_expired(1000);
        assert_eq!(set.len(now), 1);
        let (set, _) = mostly_expired(1000);
        assert_eq!(format!("{set:?}"), "AddressSet(1 entries)");
        assert!(!mostly_expired(1).0.discard(network("10.0.0.0")));
    }

    #[test]
    fn entries_are_listed_in_order_over_many_steps() {
        let mut expected: Vec<String> = Vec::new();
        for number in 0..1000_u32 {
            expected.push(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string());
        }
        for scope in ["", "%3", "%eth0", "%lo"] {
            expected.push(format!("fe80::{scope}/64"));
            expected.extend((1..300).map(|number| format!("fe80::{number:x}{scope}")));
        }
        let set: AddressSet = expected.iter().rev().map(|text| network(text)).collect();
        assert_eq!(texts(&set.entries(Instant::now())), expected);
    }

    #[test]
    fn adding_again_replaces_the_expiry() {
        let start = Instant::now();
        let set = AddressSet::new();
        for text in ["192.0.2.1", "fe80::1%lo"] {
            set.add(network(text), Some(start + Duration::from_secs(1)));
            set.add(network(text), None);
            assert!(set.contains(network(text), start + Duration::from_secs(5)));
            assert!(set.discard(network(text)));
            assert!(!set.discard(network(text)));
        }
        assert_eq!(set.len(start), 0);
        assert_eq!(set.read().inet6.len(), 0);
    }

    #[test]
    fn clones_share_their_entries() {
        let set = AddressSet::new();
        let clone = set.clone();
        clone.add(network("192.0.2.1"), None);
        assert!(set.contains(network("192.0.2.1"), Instant::now()));
        assert!(set.is_same(&clone));
        assert_eq!(set.entries(Instant::now()), [network("192.0.2.1")]);
    }
}
