//! The lines for the log: what they say, and how many there may be.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addresses::Host;
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::setting::{Setting, Wording};

/// A line for the log. `Display` writes its text, without a level or a time.
#[derive(Clone, Debug)]
pub struct LogLine {
    listener: Arc<str>,
    said: Said,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// An operator should look at it.
    Warning,
    /// The listener cannot do its work.
    Error,
}

/// What a line says of its listener.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// A connection was refused, for the first time in a while.
    Refused(Refusal),
    /// More connections were refused in the last seconds, all from one address and for one reason.
    Again {
        outcome: Outcome,
        culprit: Option<Host>,
        count: u64,
        seconds: u64,
    },
    /// More connections were refused that have no line of their own.
    Others {
        count: u64,
        seconds: u64,
    },
    Notice(Notice),
}

impl LogLine {
    pub(crate) fn new(listener: &Arc<str>, said: Said) -> Self {
        Self { listener: Arc::clone(listener), said }
    }

    #[cfg(test)]
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.said {
            Said::Refused(_) | Said::Again { .. } | Said::Others { .. } => Severity::Warning,
            Said::Notice(notice) => notice.severity(),
        }
    }

    /// The text with other names for the settings.
    #[must_use]
    pub fn text_in(&self, wording: Wording) -> String {
        let listener = &self.listener;
        match &self.said {
            Said::Refused(refusal) => format!("{listener} refused {}", refused(refusal, wording)),
            Said::Again { outcome, culprit: Some(host), count, seconds } => {
                format!("{listener} refused {host} {count} more times in the last {seconds} s: {outcome}")
            }
            Said::Again { outcome, culprit: None, count, seconds } => {
                format!("{listener} refused {count} more connections in the last {seconds} s: {outcome}")
            }
            Said::Others { count, seconds } => format!(
                "{listener} refused {count} more connections in the last {seconds} s, from others or for other reasons"
            ),
            Said::Notice(notice) => format!("{listener} {}", notice.text(wording)),
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text_in(Setting::in_rust))
    }
}

/// Who was refused, what was wrong, what came, what to change, and how repeats are reported.
fn refused(refusal: &Refusal, wording: Wording) -> String {
    let Refusal { outcome, peer, client, .. } = refusal;
    let whose = match client {
        Some(client) => format!("{client} (by {peer})"),
        None => peer.to_string(),
    };
    let detail = refusal.detail_in(wording);
    match refusal.culprit() {
        Some(host) => format!("{whose}: {outcome}: {detail}. Repeats from {host} are counted every 10 s."),
        None => format!("{whose}: {outcome}: {detail}"),
    }
}

/// Bounds the lines in any 10 s, whenever these begin.
#[derive(Default)]
pub(crate) struct Budget {
    /// When the last lines were written, the oldest first.
    written: VecDeque<Instant>,
}

impl Budget {
    /// How many lines a window may have.
    pub(crate) const LINES: usize = 100;

    /// The length of a window.
    pub(crate) const WINDOW: Duration = Duration::from_secs(10);

    /// How many lines may be written now.
    pub(crate) fn left(&mut self, now: Instant) -> usize {
        while self.written.front().is_some_and(|written| now >= *written + Self::WINDOW) {
            self.written.pop_front();
        }
        Self::LINES.saturating_sub(self.written.len())
    }

    pub(crate) fn spend(&mut self, now: Instant) {
        self.written.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::PeerAddr;
    use crate::cause::Cause;
    use crate::refusal::tests::timeout;

    fn keyword(_: Setting) -> &'static str {
        "keyword="
    }

    fn line(said: Said) -> LogLine {
        LogLine::new(&"192.0.2.9:1883".into(), said)
    }

    #[test]
    fn lines_say_who_was_refused_why_and_how_often() {
        let host = PeerAddr::Ip("192.0.2.1:1".parse().unwrap()).host();
        let denied = Refusal::new(
            Cause::Denied { entry: "192.0.2.0/24".parse().unwrap(), list: None },
            (PeerAddr::Ip("10.0.0.1:2".parse().unwrap()), timeout("192.0.2.1:1").client),
            b"",
            &"192.0.2.9:1883".into(),
        );
        let unix = Refusal::new(
            Cause::NoAddressToAllow,
            (PeerAddr::Unix(crate::UnixName::default()), None),
            b"",
            &"unix:/run/socket".into(),
        );
        let cases = [
            (
                Said::Refused(denied),
                "10.0.0.1:2: denied: deny 192.0.2.0/24 covers it. Repeats from 10.0.0.1 are counted every 10 s.",
            ),
            (
                Said::Refused(unix),
                "unix:: denied: the client has no IP address, so it is not in Options::allow",
            ),
            (
                Said::Again { outcome: Outcome::Timeout, culprit: host, count: 3, seconds: 10 },
                "192.0.2.1 3 more times in the last 10 s: timeout",
            ),
            (
                Said::Again { outcome: Outcome::Timeout, culprit: None, count: 3, seconds: 12 },
                "3 more connections in the last 12 s: timeout",
            ),
            (
                Said::Others { count: 51, seconds: 10 },
                "51 more connections in the last 10 s, from others or for other reasons",
            ),
        ];
        for (said, expected) in cases {
            assert_eq!(line(said).to_string(), format!("192.0.2.9:1883 refused {expected}"));
        }
    }

    #[test]
    fn notices_are_in_the_words_of_whoever_shows_them() {
        let error = || "Too many open files".to_owned();
        let cases = [
            (Notice::BelievesEverybody, Severity::Warning, Some("Options::trusted")),
            (
                Notice::FewDescriptors { most: 512, wanted: 4096, limit: 1024 },
                Severity::Warning,
                Some("Options::max_pending"),
            ),
            (Notice::Exhausted { error: error() }, Severity::Error, Some("Options::max_connections")),
            (Notice::Forbidden { error: error() }, Severity::Error, None),
            (Notice::Broken { error: error() }, Severity::Error, None),
        ];
        for (notice, severity, name) in cases {
            let line = line(Said::Notice(notice));
            assert_eq!(line.severity(), severity);
            let (text, other) = (line.to_string(), line.text_in(keyword));
            assert!(text.starts_with("192.0.2.9:1883 "), "{text}");
            assert_eq!(name.map(|name| text.replace(name, "keyword=")).unwrap_or(text), other);
            assert_eq!(other.contains("keyword="), name.is_some());
        }
    }

    #[test]
    fn no_ten_seconds_have_more_lines() {
        let mut budget = Budget::default();
        let start = Instant::now();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            while budget.left(now) > 0 {
                budget.spend(now);
            }
            let written = if second % 10 == 0 { 100 } else { 0 };
            assert_eq!(budget.written.iter().filter(|written| **written == now).count(), written);
        }
    }
}
