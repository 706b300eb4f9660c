//! Connections whose header is not complete, in the order in which they came. The one that has waited longest is the first to
//! go, at its deadline or to make room.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::addresses::PeerAddr;
use crate::keyed::LinkedHashMap;
use crate::trust::Approach;

/// A connection that waits for the rest of its header. Its bytes stay in the kernel, so nothing here grows with them.
pub(crate) struct Waiting {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: PeerAddr,
    pub(crate) approach: Approach,
    pub(crate) since: Instant,
    /// The value of `SO_RCVLOWAT`: how many bytes must be there before the kernel sends an event.
    pub(crate) low_water: usize,
}

impl Waiting {
    pub(crate) fn new(fd: OwnedFd, peer: PeerAddr, approach: Approach, since: Instant) -> Self {
        Self { fd, peer, approach, since, low_water: 1 }
    }
}

/// All connections that wait, in the order in which they came.
///
/// All have the same time to send their header, so the first is always the next to run out of it. One queue thus gives the
/// next deadline and the connection to close when too many wait. A timer, a task and a buffer for each connection would cost
/// more memory than the silent peer spends on it.
#[derive(Default)]
pub(crate) struct Pending {
    waiting: LinkedHashMap<u64, Waiting>,
    next_token: u64,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a connection and returns its token, which names it in events. Tokens are never used again.
    pub(crate) fn add(&mut self, waiting: Waiting) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        token
    }

    /// The connection with this token, unless it has gone since the event.
    pub(crate) fn get(&self, token: u64) -> Option<&Waiting> {
        self.waiting.get(&token)
    }

    /// As [`Pending::get`].
    pub(crate) fn get_mut(&mut self, token: u64) -> Option<&mut Waiting> {
        self.waiting.get_mut(&token)
    }

    pub(crate) fn remove(&mut self, token: u64) -> Option<Waiting> {
        self.waiting.remove(&token)
    }

    /// Takes out the connection that has waited longest.
    pub(crate) fn remove_longest_waiting(&mut self) -> Option<Waiting> {
        let token = *self.waiting.front()?.0;
        self.remove(token)
    }

    /// Takes out the connection that has waited longest, if it has waited for `limit` or longer.
    pub(crate) fn remove_expired(&mut self, limit: Duration, now: Instant) -> Option<Waiting> {
        if self.next_deadline(limit)? > now {
            return None;
        }
        self.remove_longest_waiting()
    }

    /// When the next connection runs out of time.
    pub(crate) fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        Some(self.waiting.front()?.1.since + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::UnixName;

    fn waiting(since: Instant) -> Waiting {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Waiting::new(fd, PeerAddr::Unix(UnixName::default()), Approach::Header, since)
    }

    #[test]
    fn the_longest_waiting_is_the_first_to_run_out_and_to_go() {
        let start = Instant::now();
        let limit = Duration::from_secs(5);
        let mut pending = Pending::default();
        assert_eq!(pending.next_deadline(limit), None);
        let tokens: Vec<u64> =
            (0..3).map(|second| pending.add(waiting(start + Duration::from_secs(second)))).collect();
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
        pending.add(waiting(start));
        assert!(pending.remove_expired(Duration::from_secs(1), start + Duration::from_secs(2)).is_some());
    }
}
