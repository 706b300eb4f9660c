//! The refusals to report: one record for each address and reason, for code and for the log.
//!
//! A wrongly configured balancer or ten thousand strangers must fill neither the memory nor the disk. The counters stay exact.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::addresses::Host;
use crate::keyed::LinkedHashMap;
use crate::log_lines::{Budget, LogLine, Said};
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::refusal::Refusal;

/// How many records there are at most. If nobody takes them, refusals for which there is no room are counted as dropped.
const MOST_RECORDS: usize = 1024;

/// How many lines about the listener itself may wait to be taken. The latest ones stay.
const MOST_NOTICES: usize = 100;

/// How many lines of a window may be counts of repeats. The rest is for new refusals.
const MOST_COUNTS: usize = 49;

/// The records and log lines that have not been taken yet.
///
/// Each take returns the records that have changed. The log gets a line for the first refusal of a record, if the window has
/// a line left. Repeats are counted, and at the end of the window the count becomes a line. Lines are made when they are
/// taken, so nothing is spent on lines that nobody reads.
#[derive(Default)]
pub(crate) struct Refusals {
    records: LinkedHashMap<(Outcome, Option<Host>), Record>,
    /// How many records have refusals that were not taken.
    untold: usize,
    /// Connections for whose record there was no room, since the last take.
    dropped: u64,
    /// Connections without a line in this window, apart from those that a record counts.
    unlined: u64,
    notices: VecDeque<LogLine>,
    budget: Budget,
    /// When the window began in which repeats are counted. `None` while nothing is refused.
    window: Option<Instant>,
    /// Whether the window is over and there are counts to write.
    are_counts_due: bool,
    listener: Option<Arc<str>>,
}

struct Record {
    /// The latest refusal. Its count is of those that were not taken.
    refusal: Refusal,
    /// Whether it has a line in this window or the last.
    has_line: bool,
    /// How many connections came since that line.
    unlined: u64,
}

/// What a taker of refusals gets.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct TakenRefusals {
    /// One for each reason and address, in the order of the first refusals.
    pub records: Vec<Refusal>,
    /// Log lines, already throttled.
    pub lines: Vec<LogLine>,
    /// How many connections have no record, for want of room.
    pub dropped: u64,
}

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        self.listener.get_or_insert_with(|| Arc::clone(&refusal.listener));
        let key = (refusal.outcome, refusal.culprit());
        if let Some(record) = self.records.get_mut(&key) {
            let count = record.refusal.count + 1;
            record.unlined += 1;
            record.refusal = Refusal { count, ..refusal };
            if count == 1 {
                self.untold += 1;
                self.records.to_back(&key);
            }
        } else if self.records.len() < MOST_RECORDS {
            self.records.insert(key, Record { refusal, has_line: false, unlined: 1 });
            self.untold += 1;
        } else {
            self.dropped += 1;
            self.unlined += 1;
        }
    }

    /// Adds a line about the listener itself. It does not count as one of the window's.
    pub(crate) fn say(&mut self, listener: &Arc<str>, notice: Notice) {
        if self.notices.len() >= MOST_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(LogLine::new(listener, Said::Notice(notice)));
    }

    /// Ends a window that is over. Then there is something to take, or nothing was refused in the window.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_tick().is_none_or(|end| now < end) {
            return;
        }
        let has_repeats = |record: &Record| record.has_line && record.unlined > 0;
        self.are_counts_due = self.unlined > 0 || self.records.values().any(has_repeats);
        if !self.are_counts_due {
            self.window = None;
            // A refusal after so long is news again.
            self.records.values_mut().for_each(|record| record.has_line = false);
            self.forget_told();
        }
    }

    /// When `tick` will have something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        if self.are_counts_due { None } else { Some(self.window? + Budget::WINDOW) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.untold == 0 && self.dropped == 0 && self.notices.is_empty() && !self.are_counts_due
    }

    pub(crate) fn take(&mut self, now: Instant) -> TakenRefusals {
        let mut lines = Vec::from(mem::take(&mut self.notices));
        self.tick(now);
        if self.are_counts_due {
            self.write_counts(now, &mut lines);
        }
        self.write_first_lines(now, &mut lines);
        let told =
            self.records.values_mut().map(|record| &mut record.refusal).filter(|refusal| refusal.count > 0);
        let records =
            told.map(|refusal| Refusal { count: mem::take(&mut refusal.count), ..refusal.clone() }).collect();
        self.untold = 0;
        self.forget_told();
        TakenRefusals { records, lines, dropped: mem::take(&mut self.dropped) }
    }

    /// Writes the counts of a window that is over.
    fn write_counts(&mut self, now: Instant, lines: &mut Vec<LogLine>) {
        let seconds = self.window.map_or(0, |begin| now.saturating_duration_since(begin).as_secs());
        let before = lines.len();
        for ((outcome, culprit), record) in &mut self.records {
            if !record.has_line {
                continue;
            }
            let count = mem::take(&mut record.unlined);
            if count > 0 && lines.len() < before + MOST_COUNTS && self.budget.left(now) > 1 {
                self.budget.spend(now);
                let said = Said::Again { outcome: *outcome, culprit: *culprit, count, seconds };
                lines.push(LogLine::new(&record.refusal.listener, said));
            } else {
                record.has_line = false;
                self.unlined += count;
            }
        }
        if let (Some(listener), count @ 1..) = (&self.listener, mem::take(&mut self.unlined)) {
            // The others have left one line for it, and the last such line is a window old.
            self.budget.spend(now);
            lines.push(LogLine::new(listener, Said::Others { count, seconds }));
        }
        self.are_counts_due = false;
        self.window = (lines.len() > before).then_some(now);
    }

    /// Writes a line for each record that has none, as long as the window has lines left.
    fn write_first_lines(&mut self, now: Instant, lines: &mut Vec<LogLine>) {
        for record in self.records.values_mut().filter(|record| !record.has_line && record.unlined > 0) {
            self.window.get_or_insert(now);
            if self.budget.left(now) > 1 {
                self.budget.spend(now);
                lines.push(LogLine::new(&record.refusal.listener, Said::Refused(record.refusal.clone())));
                record.has_line = true;
                // The line stands for one of them.
                record.unlined -= 1;
            } else {
                self.unlined += mem::take(&mut record.unlined);
            }
        }
        if self.unlined > 0 {
            self.window.get_or_insert(now);
        }
    }

    /// Forgets the records that were taken and have no line under which repeats would be counted.
    fn forget_told(&mut self) {
        self.records.retain(|_, record| record.has_line || record.refusal.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::tests::{missing_header, timeout};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn texts(refusals: &mut Refusals, now: Instant) -> Vec<String> {
        refusals.take(now).lines.iter().map(ToString::to_string).collect()
    }

    fn stranger(number: u32) -> Refusal {
        missing_header(&format!("{}:1", Ipv4Addr::from_bits(0x0a00_0000 + number)))
    }

    #[test]
    fn records_are_folded_by_reason_and_address() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let add_all = |refusals: &mut Refusals| {
            for peer in ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2"] {
                refusals.add(timeout(peer));
            }
            refusals.add(missing_header("192.0.2.1:3"));
        };
        add_all(&mut refusals);
        let seen = |refusals: &mut Refusals| -> Vec<_> {
            let taken = refusals.take(now);
            let fields = |record: &Refusal| (record.outcome, record.peer.to_string(), record.count);
            taken.records.iter().map(fields).collect()
        };
        let expected = [
            (Outcome::Timeout, "192.0.2.1:2".to_string(), 2),
            (Outcome::Timeout, "192.0.2.2:1".to_string(), 1),
            (Outcome::MissingHeader, "192.0.2.1:3".to_string(), 1),
        ];
        assert_eq!(seen(&mut refusals), expected);
        assert!(refusals.is_empty());
        // What has been told before does not come first for that.
        refusals.add(missing_header("192.0.2.1:3"));
        add_all(&mut refusals);
        let outcomes: Vec<_> =
            seen(&mut refusals).into_iter().map(|(outcome, _, count)| (outcome, count)).collect();
        assert_eq!(outcomes, [(Outcome::MissingHeader, 2), (Outcome::Timeout, 2), (Outcome::Timeout, 1)]);
        assert!(refusals.is_empty());
    }

    #[test]
    fn records_are_bounded_and_what_finds_no_room_is_counted() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for number in 0..3000 {
            refusals.add(stranger(number));
        }
        let taken = refusals.take(now);
        assert_eq!(taken.records.len(), MOST_RECORDS);
        assert_eq!(taken.dropped, 3000 - MOST_RECORDS as u64);
        assert!(refusals.records.len() < Budget::LINES);
    }

    #[test]
    fn one_line_then_a_count_every_ten_seconds_then_silence() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 1, 2, 9] {
            refusals.add(timeout("192.0.2.1:1"));
            assert_eq!(texts(&mut refusals, at(second)).len(), usize::from(second == 0));
        }
        assert_eq!(refusals.next_tick(), Some(at(10)));
        assert!(refusals.is_empty());
        refusals.tick(at(10));
        assert!(!refusals.is_empty(), "nobody would come for the count");
        assert_eq!(refusals.next_tick(), None);
        let count = "192.0.2.9:1883 refused 192.0.2.1 3 more times in the last 10 s: timeout";
        assert_eq!(texts(&mut refusals, at(10)), [count]);
        refusals.add(timeout("192.0.2.1:1"));
        assert_eq!(texts(&mut refusals, at(11)), Vec::<String>::new());
        refusals.tick(at(20));
        let count = "192.0.2.9:1883 refused 192.0.2.1 1 more times in the last 10 s: timeout";
        assert_eq!(texts(&mut refusals, at(20)), [count]);
        refusals.tick(at(30));
        assert_eq!((refusals.next_tick(), refusals.is_empty()), (None, true));
        assert_eq!(refusals.records.len(), 0);
        refusals.add(timeout("192.0.2.1:1"));
        assert!(texts(&mut refusals, at(60))[0].contains("refused 192.0.2.1:1: timeout"));
    }

    #[test]
    fn what_comes_before_the_first_line_is_taken_is_counted_later() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        for _ in 0..5 {
            refusals.add(timeout("192.0.2.1:1"));
        }
        assert!(texts(&mut refusals, start)[0].contains("refused 192.0.2.1:1: timeout"));
        // A late take counts for longer, and its line says so.
        let later = start + Duration::from_secs(12);
        let count = "192.0.2.9:1883 refused 192.0.2.1 4 more times in the last 12 s: timeout";
        assert_eq!(texts(&mut refusals, later), [count]);
    }

    #[test]
    fn ten_thousand_strangers_fill_no_disk() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let mut written_in_window = vec![0; 4];
        for (window, written) in (0_u64..).zip(&mut written_in_window) {
            let now = start + Budget::WINDOW * u32::try_from(window).unwrap();
            for number in 0..10_000 {
                refusals.add(stranger(number));
            }
            *written = texts(&mut refusals, now).len();
        }
        assert_eq!(written_in_window, [Budget::LINES - 1; 4]);
    }

    #[test]
    fn what_found_no_line_is_summed_up() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        for number in 0..150 {
            refusals.add(stranger(number));
        }
        assert_eq!(texts(&mut refusals, start).len(), Budget::LINES - 1);
        refusals.tick(start + Budget::WINDOW);
        let expected =
            "192.0.2.9:1883 refused 51 more connections in the last 10 s, from others or for other reasons";
        assert_eq!(texts(&mut refusals, start + Budget::WINDOW), [expected]);
    }

    #[test]
    fn no_connection_is_lost_between_the_lines() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let mut told = 0;
        for tenth in 0..510_u64 {
            let now = start + Duration::from_millis(100 * tenth);
            refusals.tick(now);
            if tenth < 300 {
                for number in 0..7 {
                    // Many come once, some again and again.
                    refusals.add(stranger(u32::try_from(tenth).unwrap() * 7 + number));
                    refusals.add(stranger(number));
                }
            }
            for line in refusals.take(now).lines {
                told += match line.said() {
                    Said::Refused(_) => 1,
                    Said::Again { count, .. } | Said::Others { count, .. } => *count,
                    Said::Notice(_) => 0,
                };
            }
        }
        assert_eq!(told, 300 * 14);
        assert!(refusals.is_empty() && refusals.records.is_empty());
    }

    #[test]
    fn no_ten_seconds_have_more_lines_wherever_they_begin() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut written = Vec::new();
        // The first window begins long before it is flooded; the next is flooded at once, by others and by the same.
        for (second, strangers) in
            [(0, 0..1), (9, 1..300), (10, 0..600), (19, 600..700), (20, 0..10), (29, 0..700)]
        {
            for number in strangers {
                refusals.add(stranger(number));
            }
            written.push((second, texts(&mut refusals, at(second)).len()));
        }
        for (begin, _) in &written {
            let within = |second: u64| (*begin..begin + 10).contains(&second);
            let count: usize =
                written.iter().filter(|(second, _)| within(*second)).map(|(_, count)| count).sum();
            assert!((1..=Budget::LINES).contains(&count), "{count} in the 10 s from {begin}: {written:?}");
        }
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        for window in 0..100_u32 {
            let now = start + Budget::WINDOW * window;
            for number in 0..200 {
                refusals.add(stranger(window * 200 + number));
            }
            for _ in 0..3 {
                refusals.say(&"192.0.2.9:1883".into(), Notice::BelievesEverybody);
            }
            refusals.tick(now);
        }
        assert!(refusals.records.len() <= MOST_RECORDS && refusals.notices.len() <= MOST_NOTICES);
        let taken = refusals.take(start + Budget::WINDOW * 100);
        assert!(taken.lines.len() <= MOST_NOTICES + Budget::LINES);
        let told: u64 = taken.records.iter().map(|record| record.count).sum();
        assert_eq!(told + taken.dropped, 100 * 200);
    }
}
