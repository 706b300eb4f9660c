//! How fast one session may publish. `now` is an argument; nothing here reads a clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::options::PublishRate;

/// A token bucket for each rate. A PUBLISH needs a token from each.
///
/// A bucket holds `count` tokens, so a client that was silent may send so many at once.
#[derive(Debug)]
pub(crate) struct Pace {
    buckets: Box<[Bucket]>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    since: Instant,
    rate: PublishRate,
}

impl Pace {
    /// `None` where there is no limit.
    pub(crate) fn new(rates: &[PublishRate], now: Instant) -> Option<Self> {
        let bucket = |rate: &PublishRate| Bucket { tokens: rate.count.into(), since: now, rate: *rate };
        (!rates.is_empty()).then(|| Self { buckets: rates.iter().map(bucket).collect() })
    }

    /// The time until the next PUBLISH may go on; zero means now.
    pub(crate) fn delay(&mut self, now: Instant) -> Duration {
        self.buckets.iter_mut().map(|bucket| bucket.delay(now)).max().unwrap_or_default()
    }

    /// Takes the tokens for a PUBLISH that goes on, even if it is too early.
    pub(crate) fn spend(&mut self, now: Instant) {
        for bucket in &mut self.buckets {
            bucket.fill(now);
            bucket.tokens -= 1.0;
        }
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let gained = now.duration_since(self.since).as_secs_f64() * self.per_second();
        self.tokens = (self.tokens + gained).min(self.rate.count.into());
        self.since = now;
    }

    fn delay(&mut self, now: Instant) -> Duration {
        self.fill(now);
        // After a computed delay, a rounding error may leave slightly less than one token.
        let missing = 1.0 - self.tokens - 1e-9;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.per_second()).unwrap_or(Duration::MAX)
    }

    fn per_second(&self) -> f64 {
        f64::from(self.rate.count) / self.rate.per.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64) -> PublishRate {
        PublishRate { count, per: Duration::from_secs(seconds) }
    }

    #[test]
    fn all_rates_hold_and_silence_is_saved_up_to_the_count() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::new(&[rate(2, 1), rate(3, 10)], start).unwrap();
        // When a PUBLISH comes, in ms, and how long it then waits.
        let table = [
            (0, 0),
            (0, 0),
            (0, 500),
            (500, 0),
            (1000, 2334),
            (3334, 0),
            (60_000, 0),
            (60_000, 0),
            (60_000, 500),
        ];
        for (when, waits) in table {
            let delay = pace.delay(at(when));
            assert!(
                delay.abs_diff(Duration::from_millis(waits)) < Duration::from_millis(1),
                "{when}: {delay:?}"
            );
            if waits == 0 {
                pace.spend(at(when));
            }
        }
    }

    #[test]
    fn what_goes_on_too_early_is_owed() {
        let start = Instant::now();
        let mut pace = Pace::new(&[rate(1, 10)], start).unwrap();
        pace.spend(start);
        pace.spend(start);
        assert_eq!(pace.delay(start).as_secs(), 19);
        assert_eq!(pace.delay(start + Duration::from_secs(20)), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_runs_backwards_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut pace = Pace::new(&[rate(1, 1)], start).unwrap();
        pace.spend(start);
        assert!(pace.delay(start - Duration::from_secs(5)) >= Duration::from_millis(999));
        assert!(Pace::new(&[], start).is_none());
    }
}
