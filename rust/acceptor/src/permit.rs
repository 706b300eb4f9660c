//! A place among the open connections, of the listener and of one client. Its holder gives it back by dropping it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::addresses::ClientNetwork;
use crate::cause::Cause;
use crate::rate::{Rate, RateTable};

/// Limits for each client. All listeners that hold a clone count together.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    limits: PerClient,
    clients: Arc<Clients>,
}

/// The limits of [`ClientLimits`]. `None` means no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PerClient {
    /// How many connections a client may have open at once.
    pub max_connections: Option<usize>,
    /// How many new connections a client may open per second.
    pub rate: Option<Rate>,
    /// How many leading bits of an IPv6 address make up one client.
    pub ipv6_prefix: u8,
}

impl Default for PerClient {
    fn default() -> Self {
        // Providers give each IPv6 customer a /64 or more.
        Self { max_connections: None, rate: None, ipv6_prefix: 64 }
    }
}

impl PerClient {
    /// Sets how many connections a client may have open at once.
    #[must_use]
    pub const fn max_connections(mut self, max_connections: usize) -> Self {
        self.max_connections = Some(max_connections);
        self
    }

    /// Sets how many new connections a client may open per second.
    #[must_use]
    pub const fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets how many leading bits of an IPv6 address make up one client.
    #[must_use]
    pub const fn ipv6_prefix(mut self, ipv6_prefix: u8) -> Self {
        self.ipv6_prefix = ipv6_prefix;
        self
    }
}

struct Clients(Mutex<Tables>);

struct Tables {
    /// One entry for each connected client, so there are no more than open connections.
    open: HashMap<ClientNetwork, usize>,
    rates: RateTable,
}

impl ClientLimits {
    /// Limits with counts of their own.
    #[must_use]
    pub fn new(limits: PerClient) -> Self {
        let tables = Tables { open: HashMap::new(), rates: RateTable::default() };
        Self { limits, clients: Arc::new(Clients(Mutex::new(tables))) }
    }

    /// Other limits with the same counts.
    #[must_use]
    pub fn with_limits(&self, limits: PerClient) -> Self {
        Self { limits, clients: Arc::clone(&self.clients) }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> PerClient {
        self.limits
    }

    /// Whether both share their counts.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.clients, &other.clients)
    }

    /// Counts a connection of `ip`. The error says which limit forbids it; then it takes no place and uses up no rate.
    pub(crate) fn admit(&self, ip: IpAddr, now: Instant) -> Result<ClientPermit, Cause> {
        let client = ClientNetwork::of(ip, self.limits.ipv6_prefix);
        let mut tables = self.clients.lock();
        let open = tables.open.get(&client).copied().unwrap_or(0);
        if let Some(most) = self.limits.max_connections
            && open >= most
        {
            return Err(Cause::TooManyFromClient { client: client.into(), open, most });
        }
        if let Some(rate) = self.limits.rate
            && !tables.rates.admit(client, rate, now)
        {
            return Err(Cause::RateLimited { client: client.into(), rate });
        }
        tables.open.insert(client, open + 1);
        Ok(ClientPermit { client, clients: Arc::clone(&self.clients) })
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clients({} connected)", self.lock().open.len())
    }
}

/// A place among the open connections of one client.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    client: ClientNetwork,
    clients: Arc<Clients>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut tables = self.clients.lock();
        if let Entry::Occupied(mut open) = tables.open.entry(self.client) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// How many connections of one listener are open: all, and those that count against `max_connections`.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    limited: AtomicUsize,
    all: AtomicUsize,
}

impl OpenConnections {
    /// A place for a connection to which no limit applies: one of the proxy's own.
    pub(crate) fn admit_unlimited(self: &Arc<Self>) -> Permit {
        self.all.fetch_add(1, Ordering::Relaxed);
        Permit { open: Arc::clone(self), is_limited: false, client: None }
    }

    /// A place for a client's connection, if fewer than `max_connections` are taken.
    pub(crate) fn admit(self: &Arc<Self>, max_connections: Option<usize>) -> Result<Permit, Cause> {
        let most = max_connections.unwrap_or(usize::MAX);
        // In one step, because several threads may admit at once on demand.
        let one_more = |open| (open < most).then_some(open + 1);
        self.limited
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|open| Cause::TooMany { open, most })?;
        self.all.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { open: Arc::clone(self), is_limited: true, client: None })
    }

    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

/// A place among the open connections of a listener. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    open: Arc<OpenConnections>,
    is_limited: bool,
    /// Held for its drop.
    client: Option<ClientPermit>,
}

impl Permit {
    /// Adds the client's own place.
    pub(crate) fn and(self, client: ClientPermit) -> Self {
        // Rust does not take a struct apart that has a `Drop`.
        let mut permit = self;
        permit.client = Some(client);
        permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.all.fetch_sub(1, Ordering::Relaxed);
        if self.is_limited {
            self.open.limited.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize) -> ClientLimits {
        ClientLimits::new(PerClient { max_connections: Some(max_connections), ..PerClient::default() })
    }

    #[test]
    fn a_dropped_permit_is_a_free_place() {
        let limits = limits(2);
        let now = Instant::now();
        let ip = "192.0.2.1".parse().unwrap();
        let first = limits.admit(ip, now).unwrap();
        let _second = limits.admit(ip, now).unwrap();
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!(limits.admit(ip, now).unwrap_err(), Cause::TooManyFromClient { client, open: 2, most: 2 });
        assert!(limits.admit("192.0.2.2".parse().unwrap(), now).is_ok());
        drop(first);
        assert!(limits.admit(ip, now).is_ok());
    }

    #[test]
    fn clones_count_together_and_forget_who_has_gone() {
        let shared = limits(1);
        let now = Instant::now();
        let ip = "2001:db8::1".parse().unwrap();
        let permit = shared.admit(ip, now).unwrap();
        let other = shared.with_limits(PerClient { max_connections: Some(1), ..PerClient::default() });
        let client = "2001:db8::/64".parse().unwrap();
        let refused = other.admit("2001:db8::2".parse().unwrap(), now).unwrap_err();
        assert_eq!(refused, Cause::TooManyFromClient { client, open: 1, most: 1 });
        drop(permit);
        assert_eq!(format!("{:?}", shared.clients), "Clients(0 connected)");
    }

    #[test]
    fn the_proxy_itself_takes_no_place() {
        let open = Arc::new(OpenConnections::default());
        let _health_check = open.admit_unlimited();
        let client = open.admit(Some(1)).unwrap();
        assert_eq!(open.admit(Some(1)).unwrap_err(), Cause::TooMany { open: 1, most: 1 });
        assert_eq!(open.count(), 2);
        drop(client);
        assert!(open.admit(Some(1)).is_ok());
    }

    #[test]
    fn threads_that_admit_at_once_admit_no_more_than_there_are_places() {
        let open = Arc::new(OpenConnections::default());
        let admitted: Vec<Permit> = std::thread::scope(|scope| {
            let admit = || (0..1000).filter_map(|_| open.admit(Some(1000)).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admit)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((admitted.len(), open.count()), (1000, 1000));
        drop(admitted);
        assert_eq!(open.count(), 0);
    }
}
