//! The lines in the log: one for each peer and reason, then a count every ten seconds, and never more than a hundred.
//!
//! A misconfigured balancer, or ten thousand strangers, must not fill the disk. The counters stay exact.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;

use crate::outcome::Outcome;
use crate::refusal::{LogLine, Refusal, Severity};

/// How long repeats are counted before they are written.
const WINDOW: Duration = Duration::from_secs(10);

/// How many lines may be written in this time over all peers, whenever it begins.
const MOST_LINES: usize = 100;

/// Of these, how many may be counts of repeats; the rest is for who is new.
const MOST_COUNTS: usize = 49;

/// Lines about refusals, to be taken by whoever writes the log.
#[derive(Default)]
pub(crate) struct LogLines {
    lines: Vec<LogLine>,
    /// When this window began; `None` while nothing is refused.
    window: Option<Instant>,
    /// When the last lines were written, the oldest first.
    written: VecDeque<Instant>,
    /// Who has had a line already, and how often since.
    repeats: LinkedHashMap<(Outcome, Option<IpAddr>), u64>,
    /// Refusals of others than those, which found no line.
    unwritten: u64,
    listener: Option<std::sync::Arc<str>>,
}

impl LogLines {
    /// Notes a refusal; it gets a line if it is the first of its kind and the window has one left.
    pub(crate) fn add(&mut self, refusal: &Refusal, now: Instant) {
        self.tick(now);
        self.window.get_or_insert(now);
        self.listener.get_or_insert_with(|| refusal.listener.clone());
        let key = (refusal.outcome, refusal.culprit());
        if let Some(count) = self.repeats.get_mut(&key) {
            *count += 1;
        } else if self.room(now) > 1 {
            self.repeats.insert(key, 0);
            self.write(first_line(refusal), now);
        } else {
            self.unwritten += 1;
        }
    }

    /// Adds a line that no window counts.
    pub(crate) fn say(&mut self, line: LogLine) {
        self.lines.push(line);
    }

    /// Writes the counts of a window that is over, and begins the next.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_tick().is_none_or(|end| now < end) {
            return;
        }
        // Lines that nobody has taken in all this time would pile up.
        self.lines.truncate(MOST_LINES);
        let repeats: Vec<_> = self.repeats.drain().filter(|(_, count)| *count > 0).collect();
        let mut unwritten = std::mem::take(&mut self.unwritten);
        for (index, ((outcome, culprit), count)) in repeats.into_iter().enumerate() {
            if index < MOST_COUNTS && self.room(now) > 1 {
                self.write(self.count_line(outcome, culprit, count), now);
                self.repeats.insert((outcome, culprit), 0);
            } else {
                unwritten += count;
            }
        }
        if unwritten > 0 {
            // All others have left one line, and the last of this kind is ten seconds old.
            let text = format!(
                "{} refused {unwritten} more connections in the last 10 s, from others or for other reasons",
                self.listener_name()
            );
            self.write(text, now);
        }
        self.window = (self.written.back() == Some(&now)).then_some(now);
    }

    /// When the window ends.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        Some(self.window? + WINDOW)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines)
    }

    /// How many lines may be written now.
    fn room(&mut self, now: Instant) -> usize {
        while self.written.front().is_some_and(|written| now >= *written + WINDOW) {
            self.written.pop_front();
        }
        MOST_LINES.saturating_sub(self.written.len())
    }

    fn write(&mut self, text: String, now: Instant) {
        self.written.push_back(now);
        self.lines.push(LogLine { severity: Severity::Warning, text });
    }

    fn count_line(&self, outcome: Outcome, culprit: Option<IpAddr>, count: u64) -> String {
        let listener = self.listener_name();
        match culprit {
            Some(ip) => format!("{listener} refused {ip} {count} more times in the last 10 s: {outcome}"),
            None => format!("{listener} refused {count} more connections in the last 10 s: {outcome}"),
        }
    }

    fn listener_name(&self) -> &str {
        self.listener.as_deref().unwrap_or_default()
    }
}

/// Who, on which listener, what was wrong, what came, what to do, and how often more will be said.
fn first_line(refusal: &Refusal) -> String {
    let Refusal { outcome, peer, client, listener, .. } = refusal;
    let whose = match client {
        Some(client) => format!("{client} (by {peer})"),
        None => peer.to_string(),
    };
    let mut line = format!("{listener} refused {whose}: {outcome}");
    let detail = refusal.detail();
    if !detail.is_empty() {
        line.push_str(": ");
        line.push_str(&detail);
    }
    if let Some(ip) = refusal.culprit() {
        line.push_str(". Repeats from ");
        line.push_str(&ip.to_string());
        line.push_str(" are counted every 10 s.");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::tests::refusal;

    fn texts(lines: &mut LogLines) -> Vec<String> {
        lines.take().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn one_line_then_a_count_every_ten_seconds_then_silence() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 1, 2, 9] {
            lines.add(&refusal(Outcome::Timeout, "192.0.2.1:1"), at(second));
        }
        assert_eq!(texts(&mut lines).len(), 1);
        assert_eq!(lines.next_tick(), Some(at(10)));
        lines.tick(at(10));
        let count = "192.0.2.9:1883 refused 192.0.2.1 3 more times in the last 10 s: timeout";
        assert_eq!(texts(&mut lines), [count]);
        lines.add(&refusal(Outcome::Timeout, "192.0.2.1:1"), at(11));
        assert_eq!(texts(&mut lines), Vec::<String>::new());
        lines.tick(at(20));
        assert_eq!(
            texts(&mut lines),
            ["192.0.2.9:1883 refused 192.0.2.1 1 more times in the last 10 s: timeout"]
        );
        lines.tick(at(30));
        assert_eq!(lines.next_tick(), None);
        lines.add(&refusal(Outcome::Timeout, "192.0.2.1:1"), at(60));
        assert!(texts(&mut lines)[0].contains("refused 192.0.2.1:1: timeout"));
    }

    #[test]
    fn ten_thousand_strangers_fill_no_disk() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        let mut written_in_window = vec![0; 4];
        for (window, written) in (0_u64..).zip(&mut written_in_window) {
            let now = start + WINDOW * u32::try_from(window).unwrap();
            for number in 0..10_000_u32 {
                let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
                lines.add(&refusal(Outcome::Malformed, &format!("{peer}:1")), now);
            }
            *written = texts(&mut lines).len();
        }
        assert_eq!(written_in_window, [MOST_LINES - 1; 4]);
    }

    #[test]
    fn what_found_no_line_is_summed_up() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        for number in 0..150_u32 {
            let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            lines.add(&refusal(Outcome::Malformed, &format!("{peer}:1")), start);
        }
        lines.take();
        lines.tick(start + WINDOW);
        let expected =
            "192.0.2.9:1883 refused 51 more connections in the last 10 s, from others or for other reasons";
        assert_eq!(texts(&mut lines), [expected]);
    }

    #[test]
    fn no_ten_seconds_have_more_lines_wherever_they_begin() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut written = Vec::new();
        // The first window begins long before it is flooded; the next is flooded at once, by others and by the same.
        for (second, strangers) in
            [(0, 0..1), (9, 1..300), (10, 0..600), (19, 600..700), (20, 0..10), (29, 0..700)]
        {
            for number in strangers {
                let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
                lines.add(&refusal(Outcome::Malformed, &format!("{peer}:1")), at(second));
            }
            written.push((second, texts(&mut lines).len()));
        }
        for (begin, _) in &written {
            let within = |second: u64| (*begin..begin + 10).contains(&second);
            let count: usize =
                written.iter().filter(|(second, _)| within(*second)).map(|(_, count)| count).sum();
            assert!((1..=MOST_LINES).contains(&count), "{count} in the 10 s from {begin}: {written:?}");
        }
    }

    #[test]
    fn lines_that_nobody_takes_do_not_pile_up() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        for window in 0..100_u32 {
            for number in 0..200_u32 {
                let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
                lines.add(&refusal(Outcome::Malformed, &format!("{peer}:1")), start + WINDOW * window);
            }
        }
        assert!(lines.take().len() <= 2 * MOST_LINES);
    }
}
