//! Waiting for headers that are late, with `SO_RCVLOWAT` so that a slow peer wakes nobody.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::pending::{Pending, Waiting};
use crate::queue::Connection;
use crate::sys;
use crate::watch::Watch;

/// The connections whose header is not complete, and those whose header is but for which the queue has no room.
pub(crate) struct Late {
    watch: Watch,
    pending: Pending,
    /// Whole, while the queue is full: they keep their place among the pending.
    held: VecDeque<Connection>,
}

impl Late {
    pub(crate) fn new(watch: Watch) -> Self {
        Self { watch, pending: Pending::default(), held: VecDeque::new() }
    }

    /// How many wait for their header, or with a whole one for room.
    pub(crate) fn len(&self) -> usize {
        self.pending.len() + self.held.len()
    }

    /// Keeps a whole connection until the queue has room.
    pub(crate) fn hold(&mut self, connection: Connection) {
        self.held.push_back(connection);
    }

    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives the one that was held first to `push`, which may give it back; says whether `push` has taken it.
    pub(crate) fn release_one(&mut self, push: impl FnOnce(Connection) -> Option<Connection>) -> bool {
        let Some(connection) = self.held.pop_front() else { return false };
        match push(connection) {
            None => true,
            Some(connection) => {
                self.held.push_front(connection);
                false
            }
        }
    }

    /// The one with this token, unless it has gone since the event.
    pub(crate) fn get(&self, token: u64) -> Option<&Waiting> {
        self.pending.get(token)
    }

    /// Waits for `waiting`, which wants `needed` more bytes; drops it if the kernel has no memory for it.
    pub(crate) fn add(&mut self, waiting: Waiting, needed: usize) -> io::Result<()> {
        set_low_water(&waiting, waiting.seen, needed);
        let token = self.pending.add(waiting);
        let Some(waiting) = self.pending.get(token) else { return Ok(()) };
        let added = self.watch.add_late(waiting.fd.as_fd(), token);
        if added.is_err() {
            self.pending.remove(token);
        }
        added
    }

    /// Keeps on waiting for the one with `token`, of which `seen` bytes are there and `needed` are not.
    pub(crate) fn keep(&mut self, token: u64, seen: usize, needed: usize, now: Instant) {
        self.pending.note_seen(token, seen, now);
        if let Some(waiting) = self.pending.get(token) {
            set_low_water(waiting, seen, needed);
        }
    }

    /// Takes out the one with this token.
    pub(crate) fn take(&mut self, token: u64) -> Option<Waiting> {
        let waiting = self.pending.remove(token)?;
        Some(self.forget(waiting))
    }

    /// Takes out the one that has waited longest for its header.
    pub(crate) fn take_longest_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.pending.remove_longest_waiting()?;
        Some(self.forget(waiting))
    }

    /// Takes out the one that has waited longest if that is at least `limit`.
    pub(crate) fn take_expired(&mut self, limit: Duration, now: Instant) -> Option<Waiting> {
        let waiting = self.pending.remove_expired(limit, now)?;
        Some(self.forget(waiting))
    }

    /// The token of one whose header has begun and that is due for a second look.
    pub(crate) fn second_look(&mut self, now: Instant) -> Option<u64> {
        self.pending.second_look(now)
    }

    /// When something is to be done: a deadline, or a second look.
    pub(crate) fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        let deadlines = [self.pending.next_deadline(limit), self.pending.next_second_look()];
        deadlines.into_iter().flatten().min()
    }

    /// Closes them all. What is watched is left as it is: it ends with the descriptor, or in a forked child it is the parent's.
    pub(crate) fn let_go(&mut self) {
        self.pending = Pending::default();
        self.held.clear();
    }

    fn forget(&self, waiting: Waiting) -> Waiting {
        self.watch.forget(waiting.fd.as_fd());
        waiting
    }
}

/// With nothing seen any byte matters, for a stranger's first byte is refused at once.
///
/// The look leaves the bytes where they are, so they count. Dripping a header a byte at a time wakes us twice instead of
/// once a byte. It is a saving only: where the kernel refuses, each byte wakes us.
fn set_low_water(waiting: &Waiting, seen: usize, needed: usize) {
    if waiting.peer.ip().is_some() && seen > 0 {
        let _ = sys::set_receive_low_water(waiting.fd.as_fd(), seen.saturating_add(needed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::{PeerAddr, UnixName};
    use crate::trust::Approach;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn waiting() -> (Waiting, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = PeerAddr::Unix(UnixName::default());
        let waiting =
            Waiting { fd: ours.into(), peer, approach: Approach::Header, since: Instant::now(), seen: 0 };
        (waiting, theirs)
    }

    fn watched(late: &Late) -> usize {
        let path = format!("/proc/self/fdinfo/{}", late.watch.descriptor().unwrap().as_raw_fd());
        std::fs::read_to_string(path).unwrap().lines().filter(|line| line.starts_with("tfd:")).count()
    }

    #[test]
    fn whoever_is_taken_out_is_watched_no_more() {
        let mut late = Late::new(Watch::new().unwrap());
        let (first, second, third) = (waiting(), waiting(), waiting());
        for waiting in [first.0, second.0, third.0] {
            late.add(waiting, 1).unwrap();
        }
        assert_eq!(watched(&late), 3);
        let kept =
            [late.take(1), late.take_longest_waiting(), late.take_expired(Duration::ZERO, Instant::now())];
        assert!(kept.iter().all(Option::is_some));
        assert_eq!(watched(&late), 0);
    }
}
