//! Late connections: those that wait in an epoll set for their header, and those that wait for room in the queue.
//!
//! `SO_RCVLOWAT` keeps the kernel from waking the thread for parts of a long header.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::pending::{Pending, Waiting};
use crate::queue::Connection;
use crate::sys;
use crate::watch::Watch;

/// The connections whose header is not complete, and those with a complete header for which the queue has no room.
pub(crate) struct Late {
    watch: Watch,
    pending: Pending,
    /// Their header is complete, but the queue is full. They count as pending until it has room.
    held: VecDeque<Connection>,
}

impl Late {
    pub(crate) fn new(watch: Watch) -> Self {
        Self { watch, pending: Pending::default(), held: VecDeque::new() }
    }

    /// How many wait, for their header or for room.
    pub(crate) fn len(&self) -> usize {
        self.pending.len() + self.held.len()
    }

    /// Keeps a connection with a complete header until the queue has room.
    pub(crate) fn hold(&mut self, connection: Connection) {
        self.held.push_back(connection);
    }

    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Offers the connection that was held first to `push`, which may give it back. Returns whether `push` took it.
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

    /// The connection with this token, unless it has gone since the event.
    pub(crate) fn get(&self, token: u64) -> Option<&Waiting> {
        self.pending.get(token)
    }

    /// Adds a connection that waits until `low_water` bytes are there. Drops it if the kernel has no memory to watch it.
    pub(crate) fn add(&mut self, mut waiting: Waiting, low_water: usize) -> io::Result<()> {
        set_low_water(&mut waiting, low_water);
        let token = self.pending.add(waiting);
        let Some(waiting) = self.pending.get(token) else { return Ok(()) };
        let added = self.watch.add_late(waiting.fd.as_fd(), token);
        if added.is_err() {
            self.pending.remove(token);
        }
        added
    }

    /// Lets the connection with this token wait on, until `low_water` bytes are there.
    pub(crate) fn keep(&mut self, token: u64, low_water: usize) {
        if let Some(waiting) = self.pending.get_mut(token) {
            set_low_water(waiting, low_water);
        }
    }

    /// Takes out the connection with this token.
    pub(crate) fn take(&mut self, token: u64) -> Option<Waiting> {
        let waiting = self.pending.remove(token)?;
        Some(self.forget(waiting))
    }

    /// Takes out the connection that has waited longest for its header.
    pub(crate) fn take_longest_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.pending.remove_longest_waiting()?;
        Some(self.forget(waiting))
    }

    /// Takes out the connection that has waited longest, if it has waited for `limit` or longer.
    pub(crate) fn take_expired(&mut self, limit: Duration, now: Instant) -> Option<Waiting> {
        let waiting = self.pending.remove_expired(limit, now)?;
        Some(self.forget(waiting))
    }

    /// When the next connection runs out of time.
    pub(crate) fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        self.pending.next_deadline(limit)
    }

    /// Takes out all connections; dropping them closes them. The epoll set stays as it is: the kernel removes an entry with
    /// its descriptor, and in a forked child the set is the parent's.
    pub(crate) fn take_all(&mut self) -> (Pending, VecDeque<Connection>) {
        (mem::take(&mut self.pending), mem::take(&mut self.held))
    }

    fn forget(&self, waiting: Waiting) -> Waiting {
        self.watch.forget(waiting.fd.as_fd());
        waiting
    }
}

/// It only saves work: if the kernel refuses, each piece wakes the thread.
fn set_low_water(waiting: &mut Waiting, low_water: usize) {
    if low_water != waiting.low_water && waiting.peer.ip().is_some() {
        let _ = sys::set_receive_low_water(waiting.fd.as_fd(), low_water);
        waiting.low_water = low_water;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::{PeerAddr, UnixName};
    use crate::trust::Approach;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn waiting() -> (Waiting, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = PeerAddr::Unix(UnixName::default());
        (Waiting::new(ours.into(), peer, Approach::Header, Instant::now()), theirs)
    }

    fn watched(late: &Late) -> usize {
        let path = format!("/proc/self/fdinfo/{}", late.watch.descriptor().unwrap().as_raw_fd());
        std::fs::read_to_string(path).unwrap().lines().filter(|line| line.starts_with("tfd:")).count()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's own thread may block")]
    fn the_kernel_shows_a_header_of_known_length_when_it_is_whole() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, address) = listener.accept().unwrap();
        let mut late = Late::new(Watch::new().unwrap());
        let waiting = Waiting::new(ours.into(), PeerAddr::Ip(address), Approach::Header, Instant::now());
        late.add(waiting, 21).unwrap();
        let epoll = late.watch.descriptor().unwrap();
        let mut shown_with = Vec::new();
        for sent in 1..=22 {
            peer.write_all(b"x").unwrap();
            // At the end the test waits, so that a slow kernel is no failure.
            let limit = Timespec { tv_sec: if sent < 21 { 0 } else { 20 }, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&epoll, PollFlags::IN)], Some(&limit)).unwrap() > 0 {
                assert_eq!(late.watch.events(4).unwrap().len(), 1);
                shown_with.push(sent);
            }
        }
        assert_eq!(shown_with, [21, 22]);
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
