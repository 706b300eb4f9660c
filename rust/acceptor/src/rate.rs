//! How often one client may connect: a virtual-scheduling (GCRA) meter per client network, in a bounded table.

use std::time::{Duration, Instant};

use hashlink::LruCache;

use crate::addresses::ClientNetwork;

/// How many clients' meters are remembered, at about 80 bytes each.
///
/// The one that has been idle longest makes room. A client that keeps connecting stays in, so it cannot hide in a crowd;
/// one that was forgotten while its meter still ran gets at most its burst again.
const REMEMBERED_CLIENTS: usize = 65_536;

/// A rate in connections per second, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Connections per second in the long run; finite and greater than 0.
    pub per_second: f64,
    /// Connections that may come at once; at least 1.
    pub burst: u32,
}

/// For each client the time at which its meter would be empty again.
pub(crate) struct RateTable(LruCache<ClientNetwork, Instant>);

impl RateTable {
    pub(crate) fn new() -> Self {
        // `new` allocates for its full capacity at once; most listeners never see so many clients.
        Self(LruCache::new_unbounded())
    }

    /// Counts one connection of `client` at `now`, if `rate` allows it.
    pub(crate) fn admit(&mut self, client: ClientNetwork, rate: Rate, now: Instant) -> bool {
        let interval = Duration::from_secs_f64(1.0 / rate.per_second);
        let tolerance = interval.saturating_mul(rate.burst.saturating_sub(1));
        let Some(empty_at) = self.0.get_mut(&client) else {
            if self.0.len() >= REMEMBERED_CLIENTS {
                self.0.remove_lru();
            }
            self.0.insert(client, now + interval);
            return true;
        };
        let wait = empty_at.saturating_duration_since(now);
        if wait > tolerance {
            return false;
        }
        *empty_at = now + wait + interval;
        true
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> ClientNetwork {
        ClientNetwork::of(std::net::Ipv4Addr::from_bits(number).into(), 64)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut table = RateTable::new();
        let rate = Rate { per_second: 2.0, burst: 3 };
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let admitted: Vec<bool> = [0, 0, 0, 0, 499, 500, 500, 1000, 5000, 5000, 5000, 5000]
            .map(|milliseconds| table.admit(client(1), rate, at(milliseconds)))
            .into();
        assert_eq!(admitted, [true, true, true, false, false, true, false, true, true, true, true, false]);
    }

    #[test]
    fn clients_do_not_share_a_meter() {
        let mut table = RateTable::new();
        let rate = Rate { per_second: 1.0, burst: 1 };
        let now = Instant::now();
        assert!(table.admit(client(1), rate, now));
        assert!(!table.admit(client(1), rate, now));
        assert!(table.admit(client(2), rate, now));
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_is_no_gift() {
        let mut table = RateTable::new();
        let rate = Rate { per_second: 1.0, burst: 1 };
        let earlier = Instant::now();
        assert!(table.admit(client(1), rate, earlier + Duration::from_secs(5)));
        assert!(!table.admit(client(1), rate, earlier));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_whoever_is_busy() {
        let mut table = RateTable::new();
        let rate = Rate { per_second: 0.001, burst: 1 };
        let now = Instant::now();
        assert!(table.admit(client(0), rate, now));
        for number in 1..200_000 {
            table.admit(client(number), rate, now);
            assert!(!table.admit(client(0), rate, now));
        }
        assert_eq!(table.len(), REMEMBERED_CLIENTS);
    }
}
