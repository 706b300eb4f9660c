//! The record of a refused connection, and the records that wait to be taken: folded, bounded, exact in their counts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hashlink::LinkedHashMap;

use crate::addresses::{ClientAddr, PeerAddr};
use crate::log_lines::LogLines;
use crate::outcome::Outcome;
use crate::remedy::{describe, remedy};
use crate::verdict::Detail;

/// How many folded records wait to be taken. More distinct ones, before anybody takes them, are counted as dropped.
const MOST_RECORDS: usize = 1024;

/// How many of the first bytes a record holds: enough for a signature and what stands behind it.
const MOST_FIRST_BYTES: usize = 24;

/// A refused connection, or several of the same address for the same reason.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub outcome: Outcome,
    /// The TCP peer of the latest one.
    pub peer: PeerAddr,
    /// The client that the header named, or the peer that was to be served directly; `None` where no header was read.
    pub client: Option<ClientAddr>,
    /// The first bytes, at most 24.
    pub first_bytes: Vec<u8>,
    /// The listener's address.
    pub listener: Arc<str>,
    /// How many connections this record stands for.
    pub count: u64,
    /// When the latest one was refused.
    pub time: SystemTime,
    pub(crate) detail: Detail,
}

impl Refusal {
    /// A record of one connection.
    pub(crate) fn new(
        outcome: Outcome,
        (peer, client): (PeerAddr, Option<ClientAddr>),
        detail: Detail,
        first_bytes: &[u8],
        listener: &Arc<str>,
    ) -> Self {
        Self {
            outcome,
            peer,
            client,
            first_bytes: first_bytes.iter().take(MOST_FIRST_BYTES).copied().collect(),
            listener: Arc::clone(listener),
            count: 1,
            time: SystemTime::now(),
            detail,
        }
    }

    /// What came, at which byte it went wrong, and what to change, in a line for people; empty if the outcome says all.
    #[must_use]
    pub fn detail(&self) -> String {
        [describe(self), remedy(self)].into_iter().flatten().collect::<Vec<_>>().join(". ")
    }

    /// Whose doing it is: the client's if a header named one, else the peer's. `None` for a UNIX socket.
    pub(crate) fn culprit(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip).or_else(|| self.peer.ip())
    }
}

/// The first bytes as a person reads them.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// What has been refused and not been taken yet.
#[derive(Default)]
pub(crate) struct Refusals {
    records: LinkedHashMap<(Outcome, Option<IpAddr>), Refusal>,
    dropped: u64,
    lines: LogLines,
}

/// What a taker of refusals gets.
#[derive(Debug, Default)]
pub struct TakenRefusals {
    /// Folded by reason and address, the first refused first.
    pub records: Vec<Refusal>,
    /// Log lines, already throttled.
    pub lines: Vec<LogLine>,
    /// Connections whose records found no room.
    pub dropped: u64,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub severity: Severity,
    /// The text, without a level or a time.
    pub text: String,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Somebody should look at it.
    Warning,
    /// The listener cannot do its work.
    Error,
}

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal, now: Instant) {
        self.lines.add(&refusal, now);
        let key = (refusal.outcome, refusal.culprit());
        if let Some(record) = self.records.get_mut(&key) {
            let count = record.count + 1;
            *record = Refusal { count, ..refusal };
        } else if self.records.len() < MOST_RECORDS {
            self.records.insert(key, refusal);
        } else {
            self.dropped += 1;
        }
    }

    /// Adds a line that is about the listener itself.
    pub(crate) fn say(&mut self, severity: Severity, text: String) {
        self.lines.say(LogLine { severity, text });
    }

    /// Writes the counts of the last ten seconds if they are over.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.lines.tick(now);
    }

    /// When `tick` will have something to write.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.lines.next_tick()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lines.is_empty() && self.dropped == 0
    }

    pub(crate) fn take(&mut self) -> TakenRefusals {
        TakenRefusals {
            records: self.records.drain().map(|(_, record)| record).collect(),
            lines: self.lines.take(),
            dropped: std::mem::take(&mut self.dropped),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn refusal(outcome: Outcome, peer: &str) -> Refusal {
        let peer = PeerAddr::Ip(peer.parse().unwrap());
        Refusal::new(outcome, (peer, None), Detail::Plain, b"", &"192.0.2.9:1883".into())
    }

    #[test]
    fn records_are_folded_by_reason_and_address() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for peer in ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2"] {
            refusals.add(refusal(Outcome::Timeout, peer), now);
        }
        refusals.add(refusal(Outcome::Malformed, "192.0.2.1:3"), now);
        let taken = refusals.take();
        let seen: Vec<_> = taken
            .records
            .iter()
            .map(|record| (record.outcome, record.peer.to_string(), record.count))
            .collect();
        let expected = [
            (Outcome::Timeout, "192.0.2.1:2".to_string(), 2),
            (Outcome::Timeout, "192.0.2.2:1".to_string(), 1),
            (Outcome::Malformed, "192.0.2.1:3".to_string(), 1),
        ];
        assert_eq!(seen, expected);
        assert!(refusals.is_empty());
    }

    #[test]
    fn records_are_bounded_and_what_finds_no_room_is_counted() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for number in 0..3000_u32 {
            let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            refusals.add(refusal(Outcome::Malformed, &format!("{peer}:1")), now);
        }
        let taken = refusals.take();
        assert_eq!(taken.records.len(), MOST_RECORDS);
        assert_eq!(taken.dropped, 3000 - MOST_RECORDS as u64);
    }

    #[test]
    fn first_bytes_are_bounded_hex() {
        let peer = PeerAddr::Ip("192.0.2.1:1".parse().unwrap());
        let bytes = [0x10; 100];
        let refusal = Refusal::new(Outcome::Malformed, (peer, None), Detail::Plain, &bytes, &"x".into());
        assert_eq!(refusal.first_bytes.len(), MOST_FIRST_BYTES);
        assert_eq!(Hex(&refusal.first_bytes[..3]).to_string(), "10 10 10");
    }
}
