//! Connections whose header is not complete: who has waited longest goes first, by its deadline or to make room.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::addresses::PeerAddr;
use crate::keyed::LinkedHashMap;
use crate::trust::Approach;

/// How long after a look a header that has begun is looked at again.
///
/// A wrong header that is shorter than any right one never fills `SO_RCVLOWAT`. Without a second look it would be refused
/// as late at its deadline, not at once as what it is.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(1);

/// A connection that waits for the rest of its header. Its bytes stay in the kernel; nothing here grows with them.
pub(crate) struct Waiting {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: PeerAddr,
    pub(crate) approach: Approach,
    pub(crate) since: Instant,
    /// How many bytes the last look has shown.
    pub(crate) seen: usize,
}

/// The waiting, in the order in which they came.
///
/// All have the same time from the same beginning, so the first is always the next to run out: one queue gives the
/// deadlines and, when it is full, the one to close. A timer, a task and a buffer for each would cost more memory than the
/// silent peer's side of the connection.
#[derive(Default)]
pub(crate) struct Pending {
    waiting: LinkedHashMap<u64, Waiting>,
    next_token: u64,
    /// When each header that has begun is due for a second look, the next one first.
    second_looks: LinkedHashMap<u64, Instant>,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds one; its token names it in the readiness events. Tokens are never used again.
    pub(crate) fn add(&mut self, waiting: Waiting) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if waiting.seen > 0 {
            self.second_looks.insert(token, waiting.since + SECOND_LOOK_AFTER);
        }
        self.waiting.insert(token, waiting);
        token
    }

    /// The one with this token, unless it has gone since the event.
    pub(crate) fn get(&self, token: u64) -> Option<&Waiting> {
        self.waiting.get(&token)
    }

    /// Notes how many bytes a look at `now` has shown.
    pub(crate) fn note_seen(&mut self, token: u64, seen: usize, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(&token) {
            waiting.seen = seen;
            if seen > 0 {
                // Inserting puts it last, which keeps the order of the times.
                self.second_looks.insert(token, now + SECOND_LOOK_AFTER);
            }
        }
    }

    pub(crate) fn remove(&mut self, token: u64) -> Option<Waiting> {
        self.second_looks.remove(&token);
        self.waiting.remove(&token)
    }

    /// Takes out the one that has waited longest.
    pub(crate) fn remove_longest_waiting(&mut self) -> Option<Waiting> {
        let token = *self.waiting.front()?.0;
        self.remove(token)
    }

    /// Takes out the one that has waited longest if that is at least `limit`.
    pub(crate) fn remove_expired(&mut self, limit: Duration, now: Instant) -> Option<Waiting> {
        if self.next_deadline(limit)? > now {
            return None;
        }
        self.remove_longest_waiting()
    }

    /// When the next one runs out.
    pub(crate) fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        Some(self.waiting.front()?.1.since + limit)
    }

    /// The token of one that is due for a second look; the next one is due later.
    pub(crate) fn second_look(&mut self, now: Instant) -> Option<u64> {
        let (token, due) = self.second_looks.front()?;
        let token = *token;
        if *due > now {
            return None;
        }
        self.second_looks.insert(token, now + SECOND_LOOK_AFTER);
        Some(token)
    }

    /// When the next second look is due.
    pub(crate) fn next_second_look(&self) -> Option<Instant> {
        Some(*self.second_looks.front()?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::UnixName;

    fn waiting(since: Instant, seen: usize) -> Waiting {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Waiting { fd, peer: PeerAddr::Unix(UnixName::default()), approach: Approach::Header, since, seen }
    }

    #[test]
    fn the_longest_waiting_is_the_first_to_run_out_and_to_go() {
        let start = Instant::now();
        let limit = Duration::from_secs(5);
        let mut pending = Pending::default();
        assert_eq!(pending.next_deadline(limit), None);
        let tokens: Vec<u64> =
            (0..3).map(|second| pending.add(waiting(start + Duration::from_secs(second), 0))).collect();
        assert_eq!(pending.next_deadline(limit), Some(start + limit));
        assert!(pending.remove_expired(limit, start + Duration::from_secs(4)).is_none());
        assert_eq!(pending.remove_expired(limit, start + limit).unwrap().since, start);
        assert!(pending.get(tokens[0]).is_none());
        pending.remove(tokens[1]);
        assert_eq!(pending.remove_longest_waiting().unwrap().since, start + Duration::from_secs(2));
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_shorter_limit_holds_for_those_who_wait_already() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.add(waiting(start, 0));
        assert!(pending.remove_expired(Duration::from_secs(1), start + Duration::from_secs(2)).is_some());
    }

    #[test]
    fn each_begun_header_is_looked_at_again_a_second_after_the_last_look() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pending = Pending::default();
        let silent = pending.add(waiting(start, 0));
        assert_eq!(pending.next_second_look(), None);
        let first = pending.add(waiting(start, 3));
        let second = pending.add(waiting(at(200), 3));
        assert_eq!(pending.next_second_look(), Some(at(1000)));
        assert_eq!(pending.second_look(at(999)), None);
        // An event has shown more of the first one meanwhile.
        pending.note_seen(first, 4, at(500));
        assert_eq!(pending.second_look(at(1200)), Some(second));
        assert_eq!(pending.second_look(at(1200)), None);
        pending.note_seen(silent, 1, at(1300));
        let due: Vec<_> = std::iter::from_fn(|| pending.second_look(at(2300))).collect();
        assert_eq!(due, [first, second, silent]);
        for token in [silent, first, second] {
            pending.remove(token);
        }
        assert_eq!(pending.next_second_look(), None);
    }
}
