//! How long headers took to come: a histogram of counters, so that counting one costs two additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets. A header that came with its connection is in the first; `header_timeout` is often 5 s,
/// behind an AWS NLB 15 s.
const BOUNDS: [Duration; 11] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// How long whole headers took, from accepting the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderTimes {
    /// How many took as long as the bound or less, for each bound in rising order. Those that took longer are in `count` only.
    pub within: Vec<(Duration, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct HeaderTimers {
    /// By bucket; the last one is for all that took longer than the last bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl HeaderTimers {
    pub(crate) fn add(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> HeaderTimes {
        let mut count = 0;
        let mut within = Vec::with_capacity(BOUNDS.len());
        for (position, counter) in self.buckets.iter().enumerate() {
            count += counter.load(Ordering::Relaxed);
            if let Some(bound) = BOUNDS.get(position) {
                within.push((*bound, count));
            }
        }
        HeaderTimes { within, count, total: Duration::from_micros(self.micros.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_up_to_its_bound() {
        let counted = HeaderTimers::default();
        for micros in [0, 1000, 1001, 5_000_000, 31_000_000] {
            counted.add(Duration::from_micros(micros));
        }
        let times = counted.snapshot();
        let within =
            |millis| times.within.iter().find(|(bound, _)| bound.as_millis() == millis).map(|(_, n)| *n);
        assert_eq!(
            [within(1), within(5), within(2500), within(5000), within(30_000)].map(Option::unwrap),
            [2, 3, 3, 4, 4]
        );
        assert_eq!((times.count, times.total), (5, Duration::from_micros(36_002_001)));
    }

    #[test]
    fn the_bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
