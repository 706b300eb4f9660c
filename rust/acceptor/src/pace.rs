//! How long whoever takes connections is busy with those it took. Meanwhile nobody waits for the next ones, and to accept
//! each as it comes only interrupts the work: a batch costs less.

use std::time::{Duration, Instant};

/// What a loop of asyncio spends on a short connection; uvloop's spends half of it (docs/benchmarks.md).
const PER_CONNECTION: Duration = Duration::from_micros(60);

/// The longest that connections are let gather.
const LONGEST: Duration = Duration::from_micros(500);

/// Who has not come for so many times as long as it should need does something else.
const STALE: u32 = 4;

/// Who comes for a connection as soon as this was waiting for it.
const PROMPT: Duration = Duration::from_micros(100);

/// And has come by now, as a rule.
const WAKING: Duration = Duration::from_micros(30);

/// What was taken last: at once, or one after the other until there was no more.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    burst: Option<Burst>,
}

#[derive(Debug)]
struct Burst {
    since: Instant,
    count: u32,
    is_over: bool,
    was_awaited: bool,
}

impl Pace {
    /// `count` connections were taken, of which the first was ready since `ready_since`; `is_last`: there are no more.
    pub(crate) fn took(&mut self, count: usize, is_last: bool, ready_since: Instant, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match &mut self.burst {
            Some(burst) if !burst.is_over && burst.elapsed(now) < burst.busy() => {
                burst.count = burst.count.saturating_add(count);
                burst.is_over = is_last;
            }
            burst => {
                let was_awaited = now.saturating_duration_since(ready_since) < PROMPT;
                *burst = Some(Burst { since: now, count, is_over: is_last, was_awaited });
            }
        }
    }

    /// A guess: for so long nobody will come for the connections that are ready, the first of them since `ready_since`. A
    /// taker that should have come by now is slower than others, and stays away for a while more.
    pub(crate) fn busy_for(&self, ready_since: Instant, now: Instant) -> Duration {
        let Some(burst) = &self.burst else { return Duration::ZERO };
        let (busy, elapsed) = (burst.busy(), burst.elapsed(now));
        let is_coming = burst.was_awaited && now.saturating_duration_since(ready_since) < WAKING;
        if is_coming || elapsed > busy.saturating_mul(STALE) {
            return Duration::ZERO;
        }
        busy.saturating_sub(elapsed).max(busy / 2).min(LONGEST)
    }
}

impl Burst {
    fn busy(&self) -> Duration {
        PER_CONNECTION.saturating_mul(self.count)
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    #[test]
    fn a_batch_keeps_its_taker_busy_for_as_long_as_it_has_connections() {
        let start = Instant::now();
        let at = |micros: u32| start + micros * MICROSECOND;
        let mut pace = Pace::default();
        assert_eq!(pace.busy_for(start, start), Duration::ZERO);
        pace.took(5, true, start, at(200));
        assert_eq!(pace.busy_for(at(200), at(200)), 300 * MICROSECOND);
        assert_eq!(pace.busy_for(at(200), at(300)), 200 * MICROSECOND);
        // It should be back.
        assert_eq!(pace.busy_for(at(200), at(1200)), 150 * MICROSECOND);
        // It will not come.
        assert_eq!(pace.busy_for(at(200), at(1401)), Duration::ZERO);
    }

    #[test]
    fn who_waited_for_a_batch_may_wait_for_the_next() {
        let start = Instant::now();
        let at = |micros: u32| start + micros * MICROSECOND;
        let mut pace = Pace::default();
        pace.took(5, true, start, at(99));
        assert_eq!(pace.busy_for(at(110), at(139)), Duration::ZERO);
        assert_eq!(pace.busy_for(at(110), at(140)), 259 * MICROSECOND);
    }

    #[test]
    fn connections_that_are_taken_one_by_one_are_a_batch_too() {
        let start = Instant::now();
        let at = |micros: u32| start + micros * MICROSECOND;
        let mut pace = Pace::default();
        for taken in 0..3 {
            pace.took(1, taken == 2, start, at(200 + taken));
        }
        assert_eq!(pace.busy_for(at(200), at(200)), 180 * MICROSECOND);
    }

    #[test]
    fn a_batch_ends_when_its_time_is_over() {
        let start = Instant::now();
        let at = |micros: u32| start + micros * MICROSECOND;
        let mut pace = Pace::default();
        pace.took(5, false, start, at(200));
        pace.took(2, false, start, at(500));
        assert_eq!(pace.busy_for(start, at(500)), 120 * MICROSECOND);
    }

    #[test]
    fn there_is_a_limit() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.took(usize::MAX, false, start, start + PROMPT);
        }
        assert_eq!(pace.busy_for(start, start + PROMPT), LONGEST);
    }
}
