//! How often a client may connect: a meter for each client network (GCRA, virtual scheduling), in a bounded table.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::addresses::ClientNetwork;
use crate::keyed::LinkedHashMap;

/// How many clients' meters are remembered, at about 80 bytes each.
///
/// If the table is full, the client that has been idle longest is forgotten. A client that keeps connecting stays in the
/// table, so it cannot hide in a crowd. A client that is forgotten too early gets at most its burst again.
const REMEMBERED_CLIENTS: usize = 65_536;

/// How many connections may come per second in the long run, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: u32,
}

impl Rate {
    /// The possible rates, in connections per second. The lowest is one in 30 years. A still lower one would overflow the
    /// meter's clock.
    pub const RANGE: RangeInclusive<f64> = 1e-9..=1e9;

    /// `per_second` connections in the long run, and `burst` at once. `burst` is at least 1; by default it is `per_second`,
    /// rounded up.
    ///
    /// `None` if the rate is not in [`Rate::RANGE`].
    #[must_use]
    pub fn new(per_second: f64, burst: Option<u32>) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and at most 1e9")]
        let default = || per_second.ceil() as u32;
        Self::RANGE
            .contains(&per_second)
            .then(|| Self { per_second, burst: burst.unwrap_or_else(default).max(1) })
    }

    /// How many connections per second may come in the long run.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.per_second
    }

    /// How many connections may come at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }
}

/// For each client, the time at which its meter will be empty. The client that has been idle longest comes first.
#[derive(Default)]
pub(crate) struct RateTable(LinkedHashMap<ClientNetwork, Instant>);

impl RateTable {
    /// Counts one connection of `client` at `now`, if `rate` allows it.
    pub(crate) fn admit(&mut self, client: ClientNetwork, rate: Rate, now: Instant) -> bool {
        let interval = Duration::from_secs_f64(1.0 / rate.per_second);
        let tolerance = interval.saturating_mul(rate.burst.saturating_sub(1));
        let Some(empty_at) = self.0.to_back(&client) else {
            if self.0.len() >= REMEMBERED_CLIENTS {
                self.0.pop_front();
            }
            self.0.insert(client, now + interval);
            return true;
        };
        // It can only be later if the rate was lower before, and that rate no longer applies.
        *empty_at = (*empty_at).min(now + tolerance.saturating_add(interval));
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
        let mut table = RateTable::default();
        let rate = Rate::new(2.0, Some(3)).unwrap();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let admitted: Vec<bool> = [0, 0, 0, 0, 499, 500, 500, 1000, 5000, 5000, 5000, 5000]
            .map(|milliseconds| table.admit(client(1), rate, at(milliseconds)))
            .into();
        assert_eq!(admitted, [true, true, true, false, false, true, false, true, true, true, true, false]);
    }

    #[test]
    fn clients_do_not_share_a_meter() {
        let mut table = RateTable::default();
        let rate = Rate::new(1.0, Some(1)).unwrap();
        let now = Instant::now();
        assert!(table.admit(client(1), rate, now));
        assert!(!table.admit(client(1), rate, now));
        assert!(table.admit(client(2), rate, now));
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_is_no_gift() {
        let mut table = RateTable::default();
        let rate = Rate::new(1.0, Some(1)).unwrap();
        let earlier = Instant::now();
        assert!(table.admit(client(1), rate, earlier + Duration::from_secs(5)));
        assert!(!table.admit(client(1), rate, earlier));
    }

    #[test]
    fn a_faster_rate_holds_for_who_was_counted_under_a_slower_one() {
        let mut table = RateTable::default();
        let slow = Rate::new(0.001, Some(5)).unwrap();
        let fast = Rate::new(10.0, Some(1)).unwrap();
        let now = Instant::now();
        for _ in 0..5 {
            assert!(table.admit(client(1), slow, now));
        }
        assert!(!table.admit(client(1), fast, now));
        assert!(table.admit(client(1), fast, now + Duration::from_millis(100)));
    }

    #[test]
    fn no_rate_overflows_the_clock() {
        for (per_second, burst) in [(1e-9, Some(u32::MAX)), (1e9, None), (1e9, Some(1)), (0.5, Some(0))] {
            let rate = Rate::new(per_second, burst).unwrap();
            let mut table = RateTable::default();
            for _ in 0..3 {
                table.admit(client(1), rate, Instant::now());
            }
        }
        for per_second in [0.0, -1.0, 1e-10, 1.1e9, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::new(per_second, None), None, "{per_second}");
        }
    }

    #[test]
    fn a_burst_is_a_seconds_worth_unless_given() {
        let bursts = [(0.1, None), (2.0, None), (2.1, None), (5.0, Some(1))]
            .map(|(per_second, burst)| Rate::new(per_second, burst).unwrap().burst());
        assert_eq!(bursts, [1, 2, 3, 1]);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_whoever_is_busy() {
        let mut table = RateTable::default();
        let rate = Rate::new(0.001, Some(1)).unwrap();
        let now = Instant::now();
        assert!(table.admit(client(0), rate, now));
        for number in 1..200_000 {
            table.admit(client(number), rate, now);
            assert!(!table.admit(client(0), rate, now));
        }
        assert_eq!(table.len(), REMEMBERED_CLIENTS);
    }
}
