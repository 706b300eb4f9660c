//! A place among the open connections, in all and for one client, that its holder gives back by dropping it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::addresses::ClientNetwork;
use crate::outcome::Outcome;
use crate::rate::{Rate, RateTable};

/// What one client may do, counted over every listener that holds a clone.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    limits: PerClient,
    clients: Arc<Clients>,
}

/// The numbers of [`ClientLimits`]; `None` means no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PerClient {
    /// Connections that are open at once.
    pub max_connections: Option<usize>,
    /// New connections per second.
    pub rate: Option<Rate>,
    /// How many leading bits of an IPv6 address make one client.
    pub ipv6_prefix: u8,
}

impl Default for PerClient {
    fn default() -> Self {
        // A provider gives each of its IPv6 customers a /64 or more.
        Self { max_connections: None, rate: None, ipv6_prefix: 64 }
    }
}

impl PerClient {
    /// Sets how many connections may be open at once.
    #[must_use]
    pub const fn max_connections(mut self, max_connections: usize) -> Self {
        self.max_connections = Some(max_connections);
        self
    }

    /// Sets how many new connections may come per second.
    #[must_use]
    pub const fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets how many leading bits of an IPv6 address make one client.
    #[must_use]
    pub const fn ipv6_prefix(mut self, ipv6_prefix: u8) -> Self {
        self.ipv6_prefix = ipv6_prefix;
        self
    }
}

struct Clients(Mutex<Tables>);

struct Tables {
    /// As many entries as clients that are connected, so bounded by the open connections.
    open: HashMap<ClientNetwork, usize>,
    rates: RateTable,
}

impl ClientLimits {
    /// Limits that nobody shares yet.
    #[must_use]
    pub fn new(limits: PerClient) -> Self {
        let tables = Tables { open: HashMap::new(), rates: RateTable::new() };
        Self { limits, clients: Arc::new(Clients(Mutex::new(tables))) }
    }

    /// The same counts under other limits.
    #[must_use]
    pub fn with_limits(&self, limits: PerClient) -> Self {
        Self { limits, clients: Arc::clone(&self.clients) }
    }

    /// The numbers in force.
    #[must_use]
    pub fn limits(&self) -> PerClient {
        self.limits
    }

    /// Whether both count in the same place.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.clients, &other.clients)
    }

    /// Counts a connection of `ip`, or says which limit forbids it. A refused one takes no place, but its rate is spent.
    pub(crate) fn admit(&self, ip: IpAddr, now: Instant) -> Result<ClientPermit, Outcome> {
        let client = ClientNetwork::of(ip, self.limits.ipv6_prefix);
        let mut tables = self.clients.lock();
        if let Some(rate) = self.limits.rate
            && !tables.rates.admit(client, rate, now)
        {
            return Err(Outcome::RateLimited);
        }
        let open = tables.open.get(&client).copied().unwrap_or(0);
        if self.limits.max_connections.is_some_and(|most| open >= most) {
            return Err(Outcome::TooManyFromClient);
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

/// One client's place.
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

/// How many connections of one listener are open: those that count against `max_connections`, and all.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    limited: AtomicUsize,
    all: AtomicUsize,
}

impl OpenConnections {
    /// A place for a connection that no limit is about: the proxy's own.
    pub(crate) fn admit_unlimited(self: &Arc<Self>) -> Permit {
        self.all.fetch_add(1, Ordering::Relaxed);
        Permit { open: Arc::clone(self), is_limited: false, client: None }
    }

    /// A place for a client's connection, if there is one among `max_connections`.
    pub(crate) fn admit(
        self: &Arc<Self>,
        max_connections: Option<usize>,
        client: Option<ClientPermit>,
    ) -> Result<Permit, Outcome> {
        // Only the acceptor's task adds, so between the test and the addition the count can only fall.
        if max_connections.is_some_and(|most| self.limited.load(Ordering::Relaxed) >= most) {
            return Err(Outcome::TooMany);
        }
        self.limited.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { open: Arc::clone(self), is_limited: true, client })
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
    #[expect(dead_code, reason = "held for its drop")]
    client: Option<ClientPermit>,
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
        assert_eq!(limits.admit(ip, now).unwrap_err(), Outcome::TooManyFromClient);
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
        assert_eq!(other.admit("2001:db8::2".parse().unwrap(), now).unwrap_err(), Outcome::TooManyFromClient);
        drop(permit);
        assert_eq!(format!("{:?}", shared.clients), "Clients(0 connected)");
    }

    #[test]
    fn the_proxy_itself_takes_no_place() {
        let open = Arc::new(OpenConnections::default());
        let _health_check = open.admit_unlimited();
        let client = open.admit(Some(1), None).unwrap();
        assert_eq!(open.admit(Some(1), None).unwrap_err(), Outcome::TooMany);
        assert_eq!(open.count(), 2);
        drop(client);
        assert!(open.admit(Some(1), None).is_ok());
    }
}
